"""The formulas of Adam, each on one array: no trees, no state, no defaults.

Letters and line numbers are those of Algorithm 1 in Kingma & Ba (2015), arXiv 1412.6980. Arrays arrive in compute
precision (float32 or wider) and a decay rate is either a Python float or a scalar of the array's own dtype. The order
of operations is part of the contract: it is the one that gives the same bits as optax.adam.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import DTypeLike

Scalar = float | jax.Array
"""A hyperparameter: a Python float, or a scalar array that may be traced."""


UNROLLED = range(30, 36)
"""Sizes around those (32 and 33) at which XLA:CPU was seen to contract Adam's loop otherwise with a select in it."""


@functools.lru_cache(maxsize=1024)
def compute_dtype(*dtypes: DTypeLike) -> jnp.dtype:
    """The precision in which arrays of the given dtypes are averaged: float32, or wider where one of them is wider."""
    wide = 64 in [jnp.finfo(d).bits for d in dtypes]
    if True in [jnp.issubdtype(d, jnp.complexfloating) for d in dtypes]:
        return jnp.dtype(jnp.complex128 if wide else jnp.complex64)
    return jnp.dtype(jnp.float64 if wide else jnp.float32)


@functools.lru_cache(maxsize=1024)
def real_dtype(dtype: DTypeLike) -> jnp.dtype:
    """The dtype of the real part: complex64 to float32, complex128 to float64, any other unchanged."""
    return jnp.finfo(dtype).dtype if jnp.issubdtype(dtype, jnp.complexfloating) else jnp.dtype(dtype)


def as_scalar(value: Scalar, dtype: DTypeLike) -> Scalar:
    """A hyperparameter ready to meet an array of this dtype without changing it: Python floats already are."""
    return value if isinstance(value, float) else jnp.asarray(value).astype(dtype)


def power_of_two(x: jax.Array) -> jax.Array:
    """The largest power of two that is not above the magnitude of x, float32; 0 below the smallest normal number."""
    exponent = jax.lax.bitcast_convert_type(x, jnp.uint32) & 0x7F800000
    return jax.lax.bitcast_convert_type(exponent, jnp.float32)


def ulp(x: jax.Array) -> jax.Array:
    """The distance of float32 numbers of the magnitude of x; 0 where that is no normal number, below 1e-31."""
    return power_of_two(x) * float(jnp.finfo(jnp.float32).eps)


def needs_dither(decay: float) -> bool:
    """Whether a step adds so few units in the last place of a float32 average, below 2^10, that rounding biases it."""
    return 1 - decay < 2.0**-14


def ema(
    decay: Scalar, average: jax.Array, x: jax.Array, *, precise: bool = False, threshold: jax.Array | None = None
) -> jax.Array:
    """Lines 7 and 8: `β a + (1-β) x`, an exponentially weighted mean.

    The precise form `a + ((1-β) x - (1-β) a)` keeps the fixed point `a = x`: in the plain one the float32 neighbours of
    β and 1-β do not add up to 1, and the average drifts off by that much divided by 1-β. Below β = 1/2 that is nothing,
    and the plain form is the exact one: it does not lose a small x in the rounding of a large a.

    Close to β = 1 the addend is a few units in the last place of a, and skewed as squares are it does not round without
    bias: a float32 `threshold` in [0, 1) dithers that rounding.
    """
    if precise and not (isinstance(decay, float) and decay < 0.5):
        change = (1 - decay) * x - (1 - decay) * average
        return average + (change if threshold is None else change + (threshold - 0.5) * ulp(average))
    return (1 - decay) * x + decay * average


def ema_weight(decay: Scalar, count: jax.Array, *, precise: bool = False) -> jax.Array:
    """Lines 9 and 10: `1 - β^t`, the weight that an average from zero has seen after t steps.

    The precise form is `-expm1(t log β)`, its logarithm taken in float64 on the host, split in two floats so that the
    product with t keeps every digit of it.
    """
    if not precise:
        return 1 - jax.lax.pow(jnp.asarray(decay), count)
    if not isinstance(decay, float):
        raise TypeError(f"a precise weight needs the decay rate as a Python float, got {decay!r}")
    t = count.astype(jnp.result_type(float))
    log_decay = math.log(decay) if decay > 0 else -math.inf
    head = float(jnp.finfo(t.dtype).dtype.type(log_decay))
    tail = log_decay - head if math.isfinite(log_decay) else 0.0
    return -jnp.expm1(t * head) - jnp.exp(t * head) * jnp.expm1(t * tail)


def square(g: jax.Array) -> jax.Array:
    """`g²`, for complex g the real `|g|²`."""
    if jnp.iscomplexobj(g):
        return g.real * g.real + g.imag * g.imag
    return g * g


def is_finite(x: Any) -> jax.Array:
    """Whether no element is NaN or infinite: then `Σ 0·x` is 0, otherwise NaN. No array of answers is in memory.

    What is no floating number is finite here: the transformation leaves it out, or says what it is and where.
    """
    if not jnp.issubdtype(getattr(x, "dtype", type(x)), jnp.inexact):
        return jnp.bool_(True)
    x = jnp.asarray(x)
    if jnp.iscomplexobj(x):
        return is_finite(x.real) & is_finite(x.imag)
    zero = jnp.sum(x.astype(compute_dtype(x.dtype)) * 0)  # a maximum drops NaN, in XLA:CPU and between devices
    return jnp.isfinite(zero)


def count(flags: jax.Array, dtype: DTypeLike, most: int = 2**32 - 1) -> jax.Array:
    """How many elements are true, as a floating scalar, for arrays of any size.

    A uint32 counts up to 2^32-1 elements and a float32 sum of ones stops at 2^24. So where an array has more than
    `most` elements integers count along the longest axes that fit, and floats add up the few counts that remain.
    """
    if flags.size <= most:
        return jnp.sum(flags, dtype=jnp.uint32).astype(dtype)
    by_length = sorted(range(flags.ndim), key=lambda axis: -flags.shape[axis])
    if flags.shape[by_length[0]] > most:
        half, axis = flags.shape[by_length[0]] // 2, by_length[0]
        parts = (jax.lax.slice_in_dim(flags, *ends, axis=axis) for ends in ((0, half), (half, None)))
        return sum((count(part, dtype, most) for part in parts), jnp.zeros([], dtype))
    axes, held = [], 1
    for axis in by_length:
        if held * flags.shape[axis] <= most:
            axes, held = [*axes, axis], held * flags.shape[axis]
    return jnp.sum(jnp.sum(flags, axis=tuple(axes), dtype=jnp.uint32).astype(dtype))


compiled = functools.partial(jax.jit, inline=True)
"""For steps that round nothing: one call instead of one for each operation where no program is recorded, and the same
operations in the program where one is."""


def to_dtype(x: Any, dtype: DTypeLike) -> jax.Array:
    """An array of this dtype: itself where it is one."""
    return x if getattr(x, "dtype", None) == dtype and isinstance(x, jax.Array) else jnp.asarray(x, dtype)


@functools.partial(compiled, static_argnums=1)
def bound_first_moment(m: jax.Array, largest: float) -> jax.Array:
    """Holds m within twice the root of the largest v, so that huge finite gradients make no huge steps.

    v saturates where g² overflows (`saturate_second_moment`); a larger m would be divided by too little: a gradient of
    1e30 would make steps of 1e10 α. With the default rates none is longer than 2 α. optax's m gets there only in steps
    in which its v is infinite. An infinite m becomes NaN, by `m - m`: it must show.
    """
    return clamp(m, min(_first_moment_limit(m.dtype), largest)) - (m - m)


@functools.partial(compiled, static_argnums=1)
def saturate_first_moment(m: jax.Array, largest: float) -> jax.Array:
    """Holds m so far below the largest number of its storage that the next mean cannot overflow by rounding.

    For AdaMax, which squares nothing. An infinite m becomes NaN, by `m - m`: it must show.
    """
    return clamp(m, min(below_largest(m.dtype), largest)) - (m - m)


def below_largest(dtype: DTypeLike) -> float:
    """A number so far below the largest of a dtype that sums and quotients of it do not overflow by rounding."""
    return float(jnp.finfo(dtype).max) * (1 - 2.0**-7)


def look_ahead(b1: Scalar, m_next: jax.Array, g_now: jax.Array) -> jax.Array:
    """NAdam's m̂: m and the gradient, both corrected, `β1 m̂ + (1-β1) ĝ`, within the limit of m; NaN stays NaN."""
    return clamp_first_moment(b1 * m_next + (1 - b1) * g_now)


def clamp_first_moment(m: jax.Array) -> jax.Array:
    """What takes the place of m and adds a gradient, held within the limit of m; NaN stays NaN."""
    return clamp(m, _first_moment_limit(m.dtype))


def clamp(x: jax.Array, limit: Scalar) -> jax.Array:
    """Real x, or each part of a complex x, held within ± limit; NaN stays NaN.

    Two selects in a row, which become a minimum and a maximum; XLA's own clamp would make it recompute x.
    """
    if jnp.iscomplexobj(x):
        return jax.lax.complex(clamp(x.real, limit), clamp(x.imag, limit))
    low = jnp.where(x > limit, limit, x)
    return jnp.where(low < -limit, -limit, low)


@functools.lru_cache
def _first_moment_limit(dtype: DTypeLike) -> float:
    return 2.0 ** (jnp.finfo(dtype).maxexp // 2 + 1)


@functools.partial(compiled, static_argnums=1)
def saturate_second_moment(v: jax.Array, largest: float) -> jax.Array:
    """Holds v at the largest number that its storage can hold, from where it decays again; NaN stays NaN.

    A select after the sum, on the value that is both emitted and stored: in other places it changes how the compiler
    contracts the sum, or takes the loop out of its vector form. In a loop of 33 elements, where XLA:CPU just stops
    unrolling, the select itself decides which product is contracted: there a branch keeps it out of the loop.
    """
    overflows = v > largest
    saturated = functools.partial(jnp.where, overflows, largest)

    def unchanged(v: jax.Array) -> jax.Array:
        return v

    if v.size in UNROLLED and isinstance(v, Tracer) and jax.default_backend() == "cpu":
        return jax.lax.cond(jnp.any(overflows), saturated, unchanged, v)
    return saturated(v)


@jax.custom_jvp
def _root(x: jax.Array) -> jax.Array:
    """`√x`, whose derivative at 0 is taken as 0 instead of infinite, so that the update has a finite gradient."""
    return jnp.sqrt(x)


root = compiled(_root)


@_root.defjvp
def _root_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (tangent,) = primals, tangents
    y = root(x)
    at_zero = y == 0
    slope = 0.5 / jnp.where(at_zero, jnp.ones_like(y), y)
    return y, jnp.where(at_zero, jnp.zeros_like(y), slope) * tangent


def divide(x: jax.Array, real: jax.Array) -> jax.Array:
    """`x / real` for real or complex x, the parts of a complex x divided one by one."""
    if jnp.iscomplexobj(x):
        return jax.lax.complex(x.real / real, x.imag / real)
    return x / real


def direction(m: jax.Array, v: jax.Array, eps: Scalar, eps_root: Scalar) -> jax.Array:
    """Line 11 without its α: `m / (√(v + ε_root) + ε)`, and 0 where m and the denominator are both 0."""
    denominator = root(v + eps_root) + eps
    if not (isinstance(eps, float) and eps >= float(jnp.finfo(v.dtype).tiny)):
        denominator = jnp.where(denominator == 0, jnp.ones_like(denominator), denominator)
    return divide(m, denominator)
