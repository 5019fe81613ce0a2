"""Master weights: half-precision parameters with float32 behind them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamx.core.errors import check_params, transformation, wrong_state
from adamx.core.leaf import MASTER
from adamx.core.step import Weights, tree_to_float32
from adamx.precision.half import start_in_float32, with_step
from adamx.storage.codec import is_half
from adamx.storage.split import bits_of, nearest_even, split, widen
from adamx.trees import Tree, check_fits, leaf_dtype, map_leaves, map_paths, path_name


class MasterWeightsState(NamedTuple):
    """What `with_master_weights` keeps.

    Attributes:
        inner: the state of the wrapped transformation.
        remainder: a tree of the parameters' structure: for bfloat16 leaves the lower 16 bits of the float32 weight as
            uint16, for float16 and float8 leaves the whole float32 weight, for others None.
    """

    inner: optax.OptState
    remainder: Tree


def _first_remainder(path: Any, p: Any, weight: Any) -> tuple[Any]:
    """What the state keeps of a parameter before the first step."""
    dtype = jnp.result_type(p)
    if dtype == jnp.bfloat16:
        return (jnp.zeros_like(p, jnp.uint16),)
    if not is_half(dtype):
        return (None,)
    return (jnp.zeros_like(weight) if isinstance(weight, jax.ShapeDtypeStruct) else weight,)


def check_masters(params: Tree, remainder: Tree) -> None:
    """Raises a TypeError with the path of a parameter whose dtype is not the one that the remainder was made for."""

    def check(path: Any, p: Any, kept: Any) -> tuple[Any, ...]:
        dtype = leaf_dtype("parameter", path, p)
        if kept is None:
            made_for, fits = "float32 or wider", not is_half(dtype)
        elif kept.dtype == jnp.uint16:
            made_for, fits = "bfloat16", dtype == jnp.bfloat16
        else:
            made_for, fits = "float16 or float8", is_half(dtype) and dtype != jnp.bfloat16
        if not fits:
            raise TypeError(
                f"the parameter at {path_name(path)} is {dtype}, the master weights in the state were made for "
                f"{made_for}. A sum p + u of a half-precision parameter and its float32 update is float32: "
                "optax.apply_updates(params, updates) keeps the dtype, as does adamx.step"
            )
        return ()

    map_paths(check, 0, params, remainder)


def _land(p: Any, remainder: Any, weight: jax.Array, u: jax.Array) -> tuple[Any, Any]:
    """The update that takes the parameter to the rounded new weight, and what then remains."""
    if remainder is None:
        return u, None
    p, moved = jnp.asarray(p), (weight + u).astype(jnp.float32)
    if p.dtype != jnp.bfloat16:
        target = jax.lax.optimization_barrier(moved.astype(p.dtype))
        return target.astype(jnp.float32) - p.astype(jnp.float32), moved
    target, lower = split(moved)
    emitted = jnp.where(bits_of(target) == bits_of(p), 0, widen(target) - widen(p))
    lands = nearest_even(widen(p) + emitted) == bits_of(target)
    return emitted, jnp.where(lands, lower, jnp.uint16(0))


def with_master_weights(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Trains half-precision parameters with float32 weights behind them.

    The wrapped transformation sees float32 gradients and float32 weights. Of a bfloat16 parameter the state keeps the
    16 bits that it lacks, so that parameter and state together are 4 bytes; float16 and float8 parameters need a whole
    float32 weight. Float32 and wider leaves pass through. The float32 weights move as they would in float32 training
    with the same gradients, to the bit, and the parameter is the weight rounded to nearest, ties away from zero.

    Updates are float32 and land exactly through `optax.apply_updates`, also under jit. Some cannot, because no float32
    number leads there by an addition: a bfloat16 weight that shrinks more than 2^16-fold in a step, or to minus zero,
    or by a subnormal number, or that rounds to infinity. There the state follows what landed. `apply_updates` adds
    nothing to float8 parameters; for them take `master_params(state, params)`, rounded.

    Args:
        tx: any transformation. What changes updates or skips steps goes inside.

    Returns:
        A transformation whose update needs the parameters, and whose state is `MasterWeightsState`.

    Raises:
        ValueError: at update, no parameters, or trees that do not fit.
        TypeError: leaves that are not floating arrays; a state that is not this transformation's.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> tx, params = adamx.with_master_weights(optax.sgd(1e-4)), jnp.ones(1, jnp.bfloat16)
        >>> state = tx.init(params)
        >>> for _ in range(100):
        ...     updates, state = tx.update(jnp.ones(1, jnp.bfloat16), state, params)
        ...     params = optax.apply_updates(params, updates)
        >>> float(params[0]), round(float(adamx.master_params(state, params)[0]), 4)
        (0.98828125, 0.99)
    """
    inner = transformation(tx)

    def init(params: optax.Params) -> MasterWeightsState:
        weights = start_in_float32(params)
        return MasterWeightsState(inner.init(weights), map_paths(_first_remainder, 1, params, weights)[0])

    def checked(gradients: Tree, state: Any, params: Tree) -> Weights:
        if not isinstance(state, MasterWeightsState):
            raise wrong_state("MasterWeightsState", state)
        check_fits(gradients, params)
        check_masters(params, state.remainder)
        return Weights(params, state.remainder, behind=MASTER)

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, MasterWeightsState]:
        given = checked(updates, state, check_params("with_master_weights", params))
        weights = given.wide()
        steps, after = inner.update(tree_to_float32(updates), state.inner, weights, **extra_args)
        emitted, remainder = map_leaves(_land, 2, given.params, state.remainder, weights, steps)
        return emitted, MasterWeightsState(after, remainder)

    def kept(after: optax.OptState, moved: Weights) -> MasterWeightsState:
        return MasterWeightsState(after, moved.remainder)

    return with_step(init, update, inner, checked, kept)
