"""The step protocol: how a transformation takes gradients to parameters, where `update` takes them to updates.

A step runs from the outside in. A chain puts into the `Pass` what its stages do to gradients and updates, a wrapper
puts into the `Weights` what is behind the parameters, and each calls the step of what it wraps. The optimizer at the
core then knows all that one pass over memory needs, and hands it to the executor: a kernel, or XLA.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx.core.apply import apply_updates, widened
from adamx.core.errors import check_transformation
from adamx.core.hidden import hidden_by
from adamx.core.leaf import MASTER, PLAIN, Leaf, behind_direction, land, scaled, to_float32, weight_behind
from adamx.core.leaf_norms import Norms, leaf_norms
from adamx.core.work import Tail, Work
from adamx.numerics import Scalar
from adamx.storage.dither import PARAMETER, Walk, walks
from adamx.trees import Tree, check_arrays, map_leaves


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "remainder", "count", "norms"],
    meta_fields=["behind", "seed"],
)
@dataclasses.dataclass(frozen=True)
class Weights:
    """Parameters, with the remainder or dither of half-precision ones.

    Attributes:
        params: a tree of arrays.
        remainder: for MASTER, what the float32 weights have beyond the parameters, see `MasterWeightsState`.
        count: for STOCHASTIC, and for MASTER at 24 bits, the clock of the dither, a uint32 scalar.
        norms: after a step that was asked for them, see `Pass.measured`: of each leaf those of gradient, update and
            weight, float32 of shape (3,).
        behind: PLAIN, MASTER or STOCHASTIC.
        seed: of that dither.
    """

    params: Tree
    remainder: Tree = None
    count: Any = None
    norms: Norms | None = None
    behind: int = PLAIN
    seed: int = 0

    def wide(self) -> Tree:
        """The float32 weights behind the parameters."""
        if self.behind == PLAIN:
            return self.params

        def weight(p: Any, remainder: Any = None) -> tuple[jax.Array]:
            return (weight_behind(p, remainder),)

        return map_leaves(weight, 1, self.params, *([self.remainder] if self.behind == MASTER else []))[0]

    def walks(self, offsets: Tree | None) -> Tree:
        """The dither of each leaf; offsets: where shards begin, see `adamx.storage.dither.walks`."""
        count = jnp.uint32(0) if self.count is None else self.count
        return walks(self.params, count, PARAMETER, (self.seed,), offsets)

    def replace(self, **changes: Any) -> "Weights":
        """The same with other fields."""
        return dataclasses.replace(self, **changes)


Execute = Callable[[Work], tuple[Leaf, ...]]
"""Takes all leaves through a step."""


@dataclasses.dataclass(frozen=True)
class Pass:
    """What a step passes inwards: the executor, the factor, the tails and extra arguments.

    Attributes:
        execute: takes all leaves through the step.
        extra: the extra arguments of `adamx.step`, for `update` and the dither.
        factor: what gradients are multiplied by, a float32 scalar; None: nothing.
        tails: what the stages behind the optimizer do, in their order.
        places: for a group of parameters, the number of each of its leaves among all; None: all are here.
        branch: takes a step only where a condition is true, see `adamx.core.guarded.Branch`; None: `jax.lax.cond`.
        measured: the gradients whose norms are asked for, with those of updates and weights: leaves in the order of the
            parameters; None: no norm is.
        shapes_only: whether nothing is computed, as in `adamx.explain`.
    """

    execute: Execute
    extra: dict[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    factor: Scalar | None = None
    tails: tuple[Tail, ...] = ()
    places: tuple[int, ...] | None = None
    branch: Callable[..., tuple[Tree, Any]] | None = None
    measured: tuple[Any, ...] | None = None
    shapes_only: bool = False

    def replace(self, **changes: Any) -> "Pass":
        """The same with other fields."""
        return dataclasses.replace(self, **changes)


Step = Callable[[Tree, Any, Weights, Pass], tuple[Weights, Any]]
"""From gradients, state, weights and pass to weights and state."""


@dataclasses.dataclass(frozen=True, eq=False)
class Update:
    """The `update` of a transformation, which also says how to step.

    An optimizer is still optax's pair of functions: `jax.tree.map`, `copy.deepcopy`, `_replace`, `eqx.filter_jit` and
    cloudpickle work. Like a function it is hashed by identity, and a copy of it is itself.

    Attributes:
        function: the update.
        step: the whole step, for an optimizer or a wrapper of one; None: `update` and `apply_updates`.
        factor: for a stage before the optimizer that multiplies all gradients by one number: from gradients, its state
            and the factor so far to the new factor and its state.
        tail: for a stage behind the optimizer that adds decay or scales: from its state and the weights to what it
            does and its state.
        why: why the step is not one pass; "" if it is one, or if there is none.
    """

    function: Callable[..., tuple[Any, optax.OptState]]
    step: Step | None = None
    factor: Callable[[Tree, Any, Scalar | None], tuple[Scalar, Any]] | None = None
    tail: Callable[[Any, Weights], tuple[Tail, Any]] | None = None
    why: str = ""

    def __call__(
        self, updates: Any, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[Any, optax.OptState]:
        """Calls the function."""
        return self.function(updates, state, params, **extra_args)

    def __copy__(self) -> "Update":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Update":
        return self


UNSAID = "no step in one pass is known for it (for adam, adamw, nadam, nadamw and mars of adamx one is)"


def about(tx: optax.GradientTransformation) -> Any:
    """What a transformation says of its step: its `update`, or an `Update` that says nothing."""
    check_transformation(tx)
    update = tx.update
    return update if isinstance(update, Update) else Update(update, why=hidden_by(update) or UNSAID)


def take_step(
    tx: optax.GradientTransformation, gradients: Tree, state: Any, weights: Weights, told: Pass
) -> tuple[Weights, Any]:
    """The step of any transformation: its own, or `update` and `apply_updates`.

    Args:
        tx: any transformation.
        gradients: a tree of the parameters' structure and shapes.
        state: of `tx`.
        weights: the parameters, and what is behind them.
        told: what is around `tx`.

    Returns:
        Weights and state after the step.
    """
    step = about(tx).step
    return composed_step(tx, gradients, state, weights, told) if step is None else step(gradients, state, weights, told)


def composed_step(
    tx: optax.GradientTransformation, gradients: Tree, state: Any, weights: Weights, told: Pass
) -> tuple[Weights, Any]:
    """The step by `update` and `apply_updates`."""
    check_arrays("parameter", weights.params)
    updates, state = composed_update(tx, gradients, state, weights, told)
    return landed(weights, updates, told), state


def composed_update(
    tx: optax.GradientTransformation, gradients: Tree, state: Any, weights: Weights, told: Pass
) -> tuple[Tree, Any]:
    """What `tx.update` gives of gradients times the factor, in the precision of the weights or wider."""
    plain = weights.behind == PLAIN
    gradients = widened(gradients, weights.params) if plain else tree_to_float32(gradients)
    factor = told.factor
    if factor is not None:
        gradients = _of_leaves(lambda g: scaled(factor, g).astype(jnp.result_type(g)), gradients)
    return optax.with_extra_args_support(tx).update(gradients, state, weights.wide(), **told.extra)


def _of_leaves(f: Callable[[Any], jax.Array], tree: Tree) -> Tree:
    def formula(x: Any) -> tuple[jax.Array]:
        return (f(x),)

    return map_leaves(formula, 1, tree)[0]


def tree_to_float32(tree: Tree) -> Tree:
    """Half-precision leaves of a tree of arrays as float32, exactly; wider ones as they are."""
    return _of_leaves(to_float32, tree)


def landed(weights: Weights, updates: Tree, told: Pass) -> Weights:
    """The weights after updates, which go through what stands behind the optimizer first."""
    for tail in told.tails:
        found, treedef = jax.tree.flatten(updates)
        starts = treedef.flatten_up_to(weights.wide())
        moved = [behind_direction(tail.on(i), u, start) for i, (u, start) in enumerate(zip(found, starts, strict=True))]
        updates = treedef.unflatten(moved)
    return measured(_moved(weights, updates, told), told, jax.tree.leaves(updates))


def measured(weights: Weights, told: Pass, updates: Sequence[Any] | None = None) -> Weights:
    """The weights after a step, with the norms of a step by these updates if they are asked for; None: by none."""
    if told.measured is None:
        return weights
    wide = [to_float32(w) for w in jax.tree.leaves(weights.wide())]
    columns = zip(told.measured, updates or [None] * len(wide), wide, strict=True)
    return weights.replace(norms=tuple(leaf_norms(*column) for column in columns))


def _moved(weights: Weights, updates: Tree, told: Pass) -> Weights:
    if weights.behind == PLAIN:
        return weights.replace(params=apply_updates(weights.params, updates))
    columns = [updates, weights.walks(told.extra.get("dither_offset"))]
    if weights.behind == MASTER:
        columns.append(weights.remainder)
    params, remainder = map_leaves(functools.partial(_land, weights.behind), 2, weights.params, *columns)
    return weights.replace(params=params, remainder=remainder if weights.behind == MASTER else None)


def _land(behind: int, p: Any, u: Any, walk: Walk, remainder: Any = None) -> tuple[jax.Array, Any]:
    return land(behind, p, remainder, weight_behind(p, remainder), u, walk)
