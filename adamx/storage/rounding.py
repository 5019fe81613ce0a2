"""Rounding against a threshold: up where the fraction that does not fit exceeds it. Integer operations decide."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from adamx.numerics import ulp
from adamx.storage.dither import fraction
from adamx.storage.split import QUIET_NAN, UPPER, from_bits, nearest_even


def to_bfloat16(x: jax.Array, bits: jax.Array | None, *, square: bool = False) -> jax.Array:
    """float32 to bfloat16.

    Args:
        x: float32; NaN stays NaN, ±inf and numbers that fit are exact.
        bits: 2^32 times the thresholds; None: to nearest.
        square: keep what is not 0 from becoming 0.
    """
    if bits is None:
        return x.astype(jnp.bfloat16)
    whole = jax.lax.bitcast_convert_type(x, jnp.uint32)
    up = (whole & 0xFFFF) > (bits >> 16)
    rounded = (whole & UPPER) + (up.astype(jnp.uint32) << 16)
    if square:
        rounded = jnp.where((whole != 0) & (rounded == 0), jnp.uint32(1 << 16), rounded)
    return from_bits(jnp.where(jnp.isnan(x), QUIET_NAN, rounded))


def sum_to_bfloat16(x: jax.Array, y: jax.Array, bits: jax.Array) -> jax.Array:
    """`x + y` to bfloat16, rounded once: what the float32 sum drops counts for the fraction as well.

    Args:
        x: float32.
        y: float32; a constant one far below half a unit in the last place of x still moves it on average.
        bits: 2^32 times the thresholds.
    """
    return from_bits(_sum(x, y, bits, 16))


def sum_to_24_bits(x: jax.Array, y: jax.Array, bits: jax.Array) -> jax.Array:
    """The same to float32 numbers whose last 8 bits are 0."""
    return jax.lax.bitcast_convert_type(_sum(x, y, bits, 8), jnp.float32)


def _sum(x: jax.Array, y: jax.Array, bits: jax.Array, drop: int) -> jax.Array:
    """The bits of `x + y` as a float32 number whose last bits, so many, are 0."""
    kept, parts = np.uint32(2**32 - (1 << drop)), float(1 << drop)
    total = x + y
    part = total - x
    dropped = (x - (total - part)) + (y - part)  # Knuth's two-sum: exact
    whole = jax.lax.bitcast_convert_type(total, jnp.uint32)
    unit = jnp.maximum(ulp(total), float(jnp.finfo(jnp.float32).smallest_normal))
    outward = jnp.where(total < 0, -dropped, dropped) / unit
    fits = (whole & ~kept).astype(jnp.float32) + outward  # in units in the last place of the float32 sum
    below = fits < 0
    up = fits + jnp.where(below, parts, 0.0) > fraction(bits) * parts
    rounded = (whole & kept) + ((up.astype(jnp.uint32) - below.astype(jnp.uint32)) << drop)
    plain = (total == 0) | ~(jnp.abs(dropped) < jnp.inf)
    return jnp.where(plain, nearest_even(total, drop), rounded)


def to_narrow(
    x: jax.Array,
    dtype: DTypeLike,
    bits: jax.Array | None,
    *,
    square: bool = False,
    read: Callable[[jax.Array], jax.Array] | None = None,
) -> jax.Array:
    """float32 within the range of a narrower dtype (float16, float8) to that dtype.

    Args:
        x: what is rounded.
        dtype: what it becomes.
        bits: 2^32 times the thresholds; None: to nearest.
        square: as for `to_bfloat16`.
        read: what a number that is kept stands for, growing with it; the fraction is of that. None: for itself.

    The step between neighbours is a power of two, so that quotient, fraction and product are exact, and the last
    conversion as well: that of XLA rounds float8 twice in some versions, by way of float16.
    """
    info = jnp.finfo(dtype)
    smallest = float(info.smallest_subnormal)
    step = jnp.maximum(ulp(x) * (float(info.eps) / float(jnp.finfo(jnp.float32).eps)), smallest)
    units = jnp.abs(x) / step
    below = jnp.floor(units)
    part = units - below
    if read is not None:
        low, number, high = (read(n * step) for n in (below, units, below + 1))
        part = (number - low) / (high - low)
    whole = jnp.round(below + part) if bits is None else below + (part > fraction(bits)).astype(jnp.float32)
    rounded = jnp.copysign(whole * step, x)
    if square:
        rounded = jnp.where(x > 0, jnp.maximum(rounded, smallest), rounded)
    return rounded.astype(dtype)
