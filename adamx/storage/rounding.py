"""Rounding against a threshold: up where the fraction that does not fit exceeds it. Integer operations decide."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from adamx.numerics import ulp
from adamx.storage.dither import fraction


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
    rounded = (whole >> 16) + up.astype(jnp.uint32)
    if square:
        rounded = jnp.where((whole != 0) & (rounded == 0), jnp.uint32(1), rounded)
    rounded = jnp.where(jnp.isnan(x), jnp.uint32(0x7FC0), rounded)
    return jax.lax.bitcast_convert_type(rounded.astype(jnp.uint16), jnp.bfloat16)


def up_to_bfloat16(x: jax.Array) -> jax.Array:
    """Non-negative float32 to the next bfloat16 that is not smaller; NaN and ∞ stay."""
    whole = jax.lax.bitcast_convert_type(x, jnp.uint32)
    rounded = jnp.where(jnp.isfinite(x), (whole + 0xFFFF) >> 16, (whole >> 16) | jnp.isnan(x))
    return jax.lax.bitcast_convert_type(rounded.astype(jnp.uint16), jnp.bfloat16)


def to_narrow(x: jax.Array, dtype: DTypeLike, bits: jax.Array | None, *, square: bool = False) -> jax.Array:
    """float32 within the range of a narrower dtype (float16, float8) to that dtype; arguments as `to_bfloat16`'s.

    The step between neighbours is a power of two, so that quotient, fraction and product are exact.
    """
    info = jnp.finfo(dtype)
    smallest = float(info.smallest_subnormal)
    if bits is None:
        rounded = x
    else:
        step = jnp.maximum(ulp(x) * (float(info.eps) / float(jnp.finfo(jnp.float32).eps)), smallest)
        units = jnp.abs(x) / step
        below = jnp.floor(units)
        rounded = jnp.copysign((below + (units - below > fraction(bits))) * step, x)
    if square:
        rounded = jnp.where(x > 0, jnp.maximum(rounded, smallest), rounded)
    return rounded.astype(dtype)
