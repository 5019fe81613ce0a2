"""Master weights: half-precision parameters with float32 behind them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamx.core.composition import check_params, wrong_state
from adamx.precision.half import is_half, start_in_float32, tree_to_float32
from adamx.precision.wrapping import Wrapping
from adamx.storage.split import bits_of, join, nearest_even, split, widen
from adamx.trees import Tree, check_fits, map_leaves, map_paths, named_leaves, path_name
from adamx.variables import bare


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
    return (jnp.zeros(weight.shape, weight.dtype) if isinstance(weight, jax.ShapeDtypeStruct) else weight,)


def _weight(p: Any, remainder: Any) -> tuple[jax.Array]:
    """The float32 weight behind a parameter."""
    if remainder is None:
        return (jnp.asarray(p),)
    return (join(jnp.asarray(p), jnp.asarray(remainder)) if p.dtype == jnp.bfloat16 else jnp.asarray(remainder),)


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
    lands = (bits_of(nearest_even(widen(p) + emitted)) == bits_of(target)) & jnp.isfinite(emitted)
    return emitted, jnp.where(lands, lower, jnp.uint16(0))


def master_params(state: Any, params: optax.Params) -> optax.Params:
    """The float32 weights behind half-precision parameters.

    Args:
        state: of `with_master_weights`, or any state that contains such, one for each group of `optax.partition` say.
        params: the parameters that belong to it.

    Returns:
        A tree like the parameters. A half-precision leaf with a master weight is float32, any other leaf is as it was.

    Raises:
        TypeError: a state with no `MasterWeightsState` in it, or with two that hold the weight of one leaf.
        ValueError: a master weight of a leaf that params does not have.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> params = jnp.ones(2, jnp.bfloat16)
        >>> state = adamx.with_master_weights(optax.sgd(0.1)).init(params)
        >>> adamx.master_params(state, params)
        Array([1., 1.], dtype=float32)
    """

    def ours(node: Any) -> bool:
        return isinstance(node, MasterWeightsState)

    found = [node for node in jax.tree.leaves(bare(state), is_leaf=ours) if ours(node)]
    if not found:
        raise TypeError(f"expected a state with a MasterWeightsState in it, got {type(state).__name__}")
    remainders: dict[str, Any] = {}
    for node in found:
        for name, remainder in named_leaves(node.remainder).items():
            if name in remainders:
                raise TypeError(f"the state has two MasterWeightsState with the weight of {name}: pass one of them")
            remainders[name] = remainder
    unknown = sorted(remainders.keys() - named_leaves(params).keys())
    if unknown:
        raise ValueError(f"the state has a master weight for {unknown[0]}, which is no leaf of params")

    def weight(path: Any, p: Any) -> tuple[jax.Array]:
        return _weight(p, remainders.get(path_name(path)))

    return map_paths(weight, 1, params)[0]


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
    inner = optax.with_extra_args_support(tx)

    def init(params: optax.Params) -> MasterWeightsState:
        weights = start_in_float32(params)
        return MasterWeightsState(inner.init(weights), map_paths(_first_remainder, 1, params, weights)[0])

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, MasterWeightsState]:
        if not isinstance(state, MasterWeightsState):
            raise wrong_state("MasterWeightsState", state)
        given = check_params("with_master_weights", params)
        check_fits(updates, given)
        weights = map_leaves(_weight, 1, given, state.remainder)[0]
        steps, after = inner.update(tree_to_float32(updates), state.inner, weights, **extra_args)
        emitted, remainder = map_leaves(_land, 2, given, state.remainder, weights, steps)
        return emitted, MasterWeightsState(after, remainder)

    return optax.GradientTransformationExtraArgs(init, Wrapping(update, with_master_weights, tx))
