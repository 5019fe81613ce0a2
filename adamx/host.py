"""`on_host`: the state in host memory, stepped there while gradients and parameters stream."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jax.sharding import AxisType

from adamx.core.errors import transformation
from adamx.core.guarded import Branch
from adamx.core.step import Execute, Pass, Update, Weights, about, take_step
from adamx.streaming.pieces import check_held, inputs_of, own_shape, shape, states_of
from adamx.streaming.shards import Device, box, lies_apart, no_mesh, to_host, to_shards
from adamx.streaming.stream import Memory, Stream, stepped
from adamx.streaming.whole import planned
from adamx.trees import Tree, staged


def on_host(
    tx: optax.GradientTransformation, device: Device | None = None, donate: bool = True
) -> optax.GradientTransformationExtraArgs:
    """Keeps the state of an optimizer in host memory and steps there.

    The accelerator keeps parameters and gradients. `adamx.step`, called outside `jit`, sends gradients to the host in
    groups of leaves, steps each group there with the CPU kernel, and sends its parameters back while the next group
    steps. The norm of clipping and the test for NaN run where the gradients are. Parameters are the same numbers as in
    the jitted step of `tx` on the host.

    Parameters and gradients may have shards on several devices. The host joins the shards of a leaf, steps whole
    leaves, and sends each device its own shard: no device gathers, and the state does not depend on the mesh. With
    several processes each keeps and steps the elements that its own devices hold: a leaf of the state has the shape of
    this part of the parameter, and is saved by each process.

    Ren, Rajbhandari, Aminabadi, Ruwase, Yang, Zhang, Li & He, "ZeRO-Offload: Democratizing Billion-Scale Model
    Training" (2021), arXiv 2101.06840, section 4: gradients go down, moments and float32 weights stay, parameters come
    up.

    The host also keeps a copy of the parameters that a step has returned, as long as they live, so that only gradients
    are sent. Other parameters (of the first step, from a checkpoint, or changed by the caller) are sent too. Without a
    step in one pass (`adamx.explain` tells) the whole tree is sent, stepped and sent back.

    Args:
        tx: any transformation, with all its wrappers: `on_host` is outermost.
        device: what keeps the state; None: the first CPU device of the process, `jax.local_devices(backend="cpu")[0]`.
        donate: whether `adamx.step` uses up state and parameters, as `jax.jit(..., donate_argnums=...)` does. False:
            it leaves them as they are, in twice the memory.

    Returns:
        A transformation with the state of `tx`, on the host; where leaves are split over processes, of parts of them.

    Raises:
        TypeError: at update and step, inside `jit` or another transformation of JAX; not outermost; a device that is
            none.
        ValueError: a state that lies elsewhere. Where leaves are split over processes: at init and step, parts that are
            no boxes or cut the blocks of a codec; at step, gradients without elements of the part, or a transformation
            that mixes elements of a leaf; at update.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.on_host(adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adamw(0.1)))
        >>> params = {"w": jnp.ones(2)}
        >>> state = tx.init(params)
        >>> params, state = adamx.step(tx, {"w": jnp.ones(2)}, state, params)
        >>> params["w"].devices(), state[1][0].mu["w"].devices()
        ({CpuDevice(id=0)}, {CpuDevice(id=0)})
    """
    if device is not None and not isinstance(device, jax.Device):
        raise TypeError(f"device must be one of jax.devices(), got {device!r}")
    inner, memory = transformation(tx), Memory()

    def host() -> Device:
        return jax.local_devices(backend="cpu")[0] if device is None else device

    def init(params: optax.Params) -> optax.OptState:
        leaves = jax.tree.leaves(params)
        if staged() or any(isinstance(p, Tracer) for p in leaves):  # jax.eval_shape, for the template of a checkpoint
            return tx.init(jax.tree.map(_unplaced, params))
        check_held(params, params)
        if any(map(lies_apart, leaves)):
            states_of(tx, params)
        shapes = any(isinstance(p, jax.ShapeDtypeStruct) for p in leaves)
        with no_mesh(), jax.default_device(host()):
            here = jax.tree.map(_unplaced, params) if shapes else to_host(params, host(), may_alias=False)
            return jax.device_put(tx.init(here), host())

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        _check_arrays(updates, state, params, host())
        _check_whole((updates, params))
        compiled = memory.once("update", lambda: jax.jit(inner.update))
        with no_mesh():
            here = to_host((updates, state, params, extra_args), host())
            moved, after = compiled(*here[:3], **here[3])
            return jax.tree.map(_beside, moved, updates), after

    def take(gradients: Tree, params: Tree, state: Tree, extra: Any, execute: Execute, branch: Branch | None) -> Any:
        told = Pass(execute, extra, branch=branch)
        weights, after = take_step(inner, gradients, state, Weights(params), told)
        return weights.params, after

    def step(gradients: Tree, state: Any, weights: Weights, told: Pass) -> tuple[Weights, Any]:
        if told.shapes_only:
            return take_step(inner, gradients, state, weights, told)
        _check_arrays(gradients, state, weights.params, host())
        _check_outermost(weights, told)
        with no_mesh():
            return on_arrays(gradients, state, weights, told)

    def on_arrays(gradients: Tree, state: Any, weights: Weights, told: Pass) -> tuple[Weights, Any]:
        gradients, params = jax.tree.map(_as_array, (gradients, weights.params))
        state = jax.tree.map(functools.partial(_on, host()), state)
        trees = (gradients, params, state, jax.tree.map(_as_array, told.extra))
        flat, treedef = jax.tree.flatten(trees)
        kinds = tuple((x.shape, x.dtype) for x in flat)
        boxes = tuple(map(box, jax.tree.leaves(params)))
        key = (treedef, kinds, boxes, told.execute, jnp.result_type(float))
        plan = memory.once(key, lambda: planned(take, inputs_of(tx, trees), told.execute, donate))
        params, after = stepped(plan, trees, Stream(gradients, params, host(), memory, donate))
        return weights.replace(params=params), after

    return optax.GradientTransformationExtraArgs(init, Update(update, step, why=about(tx).why))


OUTSIDE = (
    "adamx.on_host steps outside of jit: call adamx.step or update where gradients are arrays, and put on_host "
    "outermost, around chains, guards and master weights"
)


def _check_arrays(gradients: Tree, state: Tree, params: Tree, host: Device) -> None:
    if staged() or any(isinstance(x, Tracer) for x in jax.tree.leaves((gradients, state, params))):
        raise TypeError(f"{OUTSIDE}; here JAX traces a program")
    check_held(gradients, gradients if params is None else params)
    for sharding in {x.sharding for x in jax.tree.leaves(state) if isinstance(x, jax.Array)}:
        if sharding.device_set != {host}:
            devices = ", ".join(map(str, sharding.device_set))
            raise ValueError(
                f"the state lies on {devices}, adamx.on_host keeps it on {host}: make it by tx.init(params) outside "
                "of jit, or move it there, jax.device_put(state, device)"
            )


def _check_whole(tree: Tree) -> None:
    if any(map(lies_apart, jax.tree.leaves(tree))):
        raise ValueError("update of adamx.on_host needs whole leaves in each process: call adamx.step")


def _check_outermost(weights: Weights, told: Pass) -> None:
    if weights.behind or told.factor is not None or told.tails or told.branch is not None:
        raise TypeError(f"{OUTSIDE}; it is inside another transformation")


def _as_array(x: Any) -> Any:
    """An array of its own type, not of a weak one as Python numbers have."""
    if isinstance(x, jax.Array) and not x.weak_type:
        return x
    return jnp.asarray(x, x.dtype if hasattr(x, "dtype") else jnp.result_type(x))


def _on(device: Device, x: Any) -> Any:
    return x if isinstance(x, jax.Array) else jax.device_put(x, device)


def _unplaced(x: Any) -> Any:
    """The shape of what tells that it is placed on a mesh: the state is not. Of a split leaf what this process has."""
    if lies_apart(x):
        return own_shape(x)
    if isinstance(x, jax.Array):
        return shape(x) if AxisType.Explicit in jax.typeof(x).sharding.mesh.axis_types else x
    return shape(x) if isinstance(x, jax.ShapeDtypeStruct) else x


def _beside(moved: Any, x: Any) -> Any:
    """An array where another one is."""
    return to_shards([moved], [x])[0] if isinstance(x, jax.Array) else moved
