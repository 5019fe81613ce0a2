"""`shard_state`: each device keeps and steps its part of the moments."""

from typing import Any

import jax
import optax
from jax.sharding import PartitionSpec

from adamx.core.errors import transformation
from adamx.core.leaf_norms import are
from adamx.core.step import Pass, Update, Weights, about, take_step
from adamx.differences import first_difference
from adamx.sharding.each import on_each
from adamx.sharding.placement import Mesh, is_explicit, mesh_axes, own_specs, told
from adamx.sharding.plan import Plan, abstract, make_plan
from adamx.sharding.region import automatic, constrain, region
from adamx.trees import Tree, path_name
from adamx.variables import flatten_with_path


def shard_state(
    tx: optax.GradientTransformation, mesh: Mesh, axis: str | tuple[str, ...] = "data", specs: Any = None
) -> optax.GradientTransformationExtraArgs:
    """Splits the state of an optimizer, and the work of a step, over data-parallel devices (ZeRO-1).

    Each of n devices keeps 1/n of the moments, gets 1/n of the gradients and steps 1/n of the parameters. If parameters
    are not sharded, the new ones are gathered. Results are those of one device, from gradients that are summed in
    another order.

    Rajbhandari, Rasley, Ruwase & He, "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models" (2020),
    arXiv 1910.02054, section 5.1: P_os, stage 1. XLA's partitioner finds the collectives: Xu et al., "Automatic
    Cross-Replica Sharding of Weight Update in Data-Parallel Training" (2020), arXiv 2004.13336.

    A moment has the spec of its parameter, with the data axis added to an axis of the array that it divides; the last
    axis is split between whole blocks of a codec. `state_sharding` tells what goes where, and what stays whole.

    Args:
        tx: any transformation. Norms and other sums over elements that it takes are those of whole arrays.
        mesh: the devices, its axes all Auto or all Explicit.
        axis: the axis of the mesh that the batch is split over, or several.
        specs: how the parameters are placed: a tree with a `PartitionSpec` in the place of each or of a subtree. None:
            as types say on a mesh of Explicit axes, whole on every device on one of Auto axes, where jit does not say.

    Returns:
        A transformation with the state of `tx`, whose update and init work inside and outside jit and place what they
        return. Through `adamx.step` the parameters are gathered in their own dtype instead of the updates, and the
        fused kernels work on the shards.

    Raises:
        ValueError: an axis that the mesh does not have; axes of several kinds; at init, parameters that are not placed
            as `specs` says, or blocks of a codec that the parameter's own spec cuts.

    Example:
        >>> import jax, jax.numpy as jnp, adamx
        >>> mesh = jax.sharding.Mesh(jax.devices(), ("data",))
        >>> tx, params = adamx.shard_state(adamx.adam(0.1), mesh), jnp.ones(2)
        >>> step = jax.jit(lambda params, state, gradients: adamx.step(tx, gradients, state, params))
        >>> params, state = step(params, tx.init(params), jnp.ones(2))
        >>> round(float(params[0]), 3)
        0.9
    """
    axes, explicit = mesh_axes(mesh, axis), is_explicit(mesh)
    inner = transformation(tx)
    auto = automatic(mesh)

    def plan(params: Tree) -> Plan:
        return make_plan(tx, abstract(params), mesh, axes, own_specs(params, mesh, specs))

    def init(params: optax.Params) -> optax.OptState:
        if not jax.tree.leaves(params):
            return tx.init(params)
        if specs is None and not explicit:
            _check_whole(params, mesh)
        placed = region(tx.init, mesh, plan(params).state)
        if any(isinstance(p, jax.ShapeDtypeStruct) for p in jax.tree.leaves(params)):
            return jax.jit(lambda: placed(params))()
        return jax.jit(placed)(params)

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        where = plan(updates if params is None else params)
        if params is not None:
            _check_structure(updates, params)

        def on_shards(updates: Tree, state: Any, params: Tree, extra_args: dict[str, Any]) -> Any:
            updates = constrain(auto, updates, where.shards)
            if params is not None:
                params = _to_shards(auto, params, where)
            moved, state = inner.update(updates, state, params, **extra_args)
            return constrain(auto, moved, where.shards), state  # or XLA gathers what it is made of

        return region(on_shards, mesh, (where.params, where.state))(updates, state, params, extra_args)

    def step(gradients: Tree, state: Any, weights: Weights, told: Pass) -> tuple[Weights, Any]:
        where = plan(jax.eval_shape(weights.wide))
        _check_structure(gradients, weights.params)
        same = are(jax.tree.leaves(gradients), told.measured)

        def on_shards(gradients: Tree, state: Any, weights: Weights, passed: tuple[Any, ...]) -> Any:
            factor, tails, extra, measured = passed
            gradients = constrain(auto, gradients, where.shards)
            measured = tuple(jax.tree.leaves(gradients)) if same else measured
            execute = on_each(told.execute, auto, where.shards, told.places)
            inside = Pass(execute, extra, factor, tails, measured=measured)
            given = weights.replace(params=_to_shards(auto, weights.params, where))
            moved, state = take_step(inner, gradients, state, given, inside)
            params = constrain(auto, moved.params, where.shards)
            return (params, moved.remainder, moved.count, moved.norms), state

        behind = jax.tree.map(_whole, (weights.remainder, weights.count, told.measured))
        call = region(on_shards, mesh, ((where.params, *behind), where.state))
        passed = (told.factor, told.tails, told.extra, None if same else told.measured)
        (params, remainder, count, norms), state = call(gradients, state, weights, passed)
        return weights.replace(params=params, remainder=remainder, count=count, norms=norms), state

    return optax.GradientTransformationExtraArgs(init, Update(update, step, why=about(tx).why))


def _whole(_: Any) -> PartitionSpec:
    return PartitionSpec()


def _to_shards(mesh: Mesh, params: Tree, where: Plan) -> Tree:
    """First as they are: in a scan XLA decides how the carry is placed."""
    return constrain(mesh, constrain(mesh, params, where.params), where.shards)


def _check_structure(updates: Tree, params: Tree) -> None:
    difference = first_difference(params, updates)
    if difference:
        raise ValueError(f"the gradient tree does not have the structure of the parameter tree: {difference}")


def _check_whole(params: Tree, mesh: Mesh) -> None:
    """Raises a ValueError that says how to tell that parameters are split: update would gather them."""
    for path, p in flatten_with_path(params)[0]:
        spec = told(p, mesh)
        if spec is not None and any(e is not None for e in spec):
            raise ValueError(
                f"the parameter at {path_name(path)} is placed as {spec}, which jit does not tell on a mesh of Auto "
                "axes: say it, shard_state(..., specs=jax.tree.map(lambda p: p.sharding.spec, params))"
            )
