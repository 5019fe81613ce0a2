"""Master weights: half-precision parameters with float32 behind them."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamx import hyperparameters
from adamx.core.errors import check_params, transformation, wrong_state
from adamx.core.leaf import MASTER, master_sum
from adamx.core.step import Weights, tree_to_float32
from adamx.precision.half import start_in_float32, with_step
from adamx.storage.codec import is_half
from adamx.storage.split import bits_of, nearest_even, split, widen
from adamx.trees import Tree, check_fits, leaf_dtype, map_leaves, map_paths, path_name

WHOLE, NARROW = 32, 24
"""Bits of a master weight."""


class MasterWeightsState(NamedTuple):
    """The state of `with_master_weights` at 32 bits.

    Attributes:
        inner: the state of the wrapped transformation.
        remainder: a tree of the parameters' structure: for bfloat16 leaves the lower 16 bits of the float32 weight as
            uint16, for float16 and float8 leaves the whole float32 weight, for others None.
    """

    inner: optax.OptState
    remainder: Tree


class DitheredMasterWeightsState(NamedTuple):
    """What `with_master_weights` keeps at 24 bits.

    Attributes:
        inner: the state of the wrapped transformation.
        remainder: a tree of the parameters' structure: for bfloat16 leaves 8 more bits of the weight as uint8, for
            others None.
        step: a uint32 scalar that counts and wraps: the clock of the dither.
    """

    inner: optax.OptState
    remainder: Tree
    step: jax.Array


MASTERS = MasterWeightsState | DitheredMasterWeightsState
"""The states that hold master weights."""

OTHER_BITS = (
    ": the two keep weights at other numbers of bits. Weights move from one to the other by adamx.set_master_params("
    "tx.init(params), params, adamx.master_params(state, params)), and what is inside by "
    "after._replace(inner=state.inner)"
)


def _first_remainder(bits: int, path: Any, p: Any, weight: Any) -> tuple[Any]:
    """What the state keeps of a parameter before the first step."""
    dtype = jnp.result_type(p)
    if dtype == jnp.bfloat16:
        return (jnp.zeros_like(p, jnp.uint16 if bits == WHOLE else jnp.uint8),)
    if not is_half(dtype):
        return (None,)
    if bits != WHOLE:
        raise TypeError(
            f"with_master_weights: bits={bits} keeps {bits - 16} bits beside a bfloat16 parameter, but the parameter "
            f"at {path_name(path)} is {dtype}, which is not a part of its float32 weight: leave bits at {WHOLE}"
        )
    return (jnp.zeros_like(weight) if isinstance(weight, jax.ShapeDtypeStruct) else weight,)


def check_masters(params: Tree, remainder: Tree) -> None:
    """Raises a TypeError with the path of a parameter whose dtype is not the one that the remainder was made for."""

    def check(path: Any, p: Any, kept: Any) -> tuple[Any, ...]:
        dtype = leaf_dtype("parameter", path, p)
        if kept is None:
            made_for, fits = "float32 or wider", not is_half(dtype)
        elif kept.dtype in (jnp.uint16, jnp.uint8):
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


def _land(p: Any, remainder: Any, weight: jax.Array, u: jax.Array, walk: Any = None) -> tuple[Any, Any]:
    """The update that takes the parameter to the rounded new weight, and what then remains."""
    if remainder is None:
        return u, None
    p, moved = jnp.asarray(p), master_sum(weight, u, remainder, walk)
    if p.dtype != jnp.bfloat16:
        target = jax.lax.optimization_barrier(moved.astype(p.dtype))
        return target.astype(jnp.float32) - p.astype(jnp.float32), moved
    target, lower = split(moved, remainder.dtype)
    emitted = jnp.where(bits_of(target) == bits_of(p), 0, widen(target) - widen(p))
    lands = nearest_even(widen(p) + emitted) == bits_of(target)
    return emitted, jnp.where(lands, lower, jnp.zeros_like(lower))


def with_master_weights(
    tx: optax.GradientTransformation, bits: int = WHOLE, seed: int = 0
) -> optax.GradientTransformationExtraArgs:
    """Trains half-precision parameters with float32 weights behind them.

    The wrapped transformation sees float32 gradients and float32 weights. For a bfloat16 parameter the state keeps the
    low 16 bits of the float32 weight (2 more bytes per parameter); for float16 and float8 parameters it keeps the
    whole float32 weight. Float32 and wider leaves are left alone. The float32 weights are bitwise identical to those
    of float32 training with the same gradients, and the parameter is the weight rounded to nearest, ties away from
    zero.

    Updates are float32, and `optax.apply_updates` gives exactly the new parameter, also under jit. The exceptions are
    results that no float32 addition gives: a bfloat16 weight that shrinks more than 2^16-fold in a step, or to minus
    zero, or by a subnormal number, or that rounds to infinity. There the state follows the parameter that came out.
    `apply_updates` adds
    nothing to float8 parameters; for them take `master_params(state, params)`, rounded.

    With `bits=24` the state keeps 8 of the 16 bits, and parameter and state together are 3 bytes. Each new weight is
    rounded to 24 bits by dither (`adamx.storage.dither`), so that updates far below the last of them add up as they
    would in float32. Roundings of updates at random add up at random: docs/low-precision.md has the distance from the
    weights of 32 bits. The CPU kernel steps these weights; on GPUs and TPUs XLA's own code does.

    Args:
        tx: any transformation. What changes updates or skips steps goes inside.
        bits: of the weight behind a bfloat16 parameter, 32 or 24.
        seed: of the dither at 24 bits.

    Returns:
        A transformation whose update needs the parameters, and whose state is `MasterWeightsState`; at 24 bits it is
        `DitheredMasterWeightsState`, and update takes the extra argument `dither_offset` inside `shard_map`, as
        `scale_by_moments` does.

    Raises:
        ValueError: bits that are neither 32 nor 24; at update, no parameters, or trees that do not fit.
        TypeError: leaves that are not floating arrays; float16 and float8 parameters at 24 bits; a state that is not
            this transformation's, or one of another number of bits.

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
    if hyperparameters.integer("bits", bits, 0) not in (WHOLE, NARROW):
        raise ValueError(f"bits must be {WHOLE} or {NARROW}, got {bits}")
    seed, narrow = hyperparameters.integer("seed", seed, 0), bits == NARROW
    expected = DitheredMasterWeightsState if narrow else MasterWeightsState

    def init(params: optax.Params) -> Any:
        weights = start_in_float32(params)
        remainder = map_paths(functools.partial(_first_remainder, bits), 1, params, weights)[0]
        return expected(inner.init(weights), remainder, *([jnp.zeros([], jnp.uint32)] if narrow else []))

    def checked(gradients: Tree, state: Any, params: Tree) -> Weights:
        if not isinstance(state, expected):
            raise wrong_state(expected.__name__, state, OTHER_BITS if isinstance(state, MASTERS) else "")
        check_fits(gradients, params)
        check_masters(params, state.remainder)
        count = state.step + 1 if isinstance(state, DitheredMasterWeightsState) else None
        return Weights(params, state.remainder, count, behind=MASTER, seed=seed)

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, Any]:
        given = checked(updates, state, check_params("with_master_weights", params))
        weights = given.wide()
        steps, after = inner.update(tree_to_float32(updates), state.inner, weights, **extra_args)
        places = [given.walks(extra_args.get("dither_offset"))] if narrow else []
        emitted, remainder = map_leaves(_land, 2, given.params, state.remainder, weights, steps, *places)
        return emitted, kept(after, given.replace(remainder=remainder))

    def kept(after: optax.OptState, moved: Weights) -> Any:
        return expected(after, moved.remainder, *([moved.count] if narrow else []))

    return with_step(init, update, inner, checked, kept)
