"""A float32 number as a bfloat16 number and the 16 bits that it drops.

The bfloat16 number is the nearest one, ties away from zero: then the dropped bits, read with a sign, lead back from it
to the one float32 number. Rounding ties to even would leave two for some. Integer operations throughout: a compiler may
skip a rounding to bfloat16 and back, and does, but not a shift. Where the last 8 bits of the float32 number are 0, 8 of
the 16 are enough.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

_EXPONENT = 0x7F800000
UPPER, QUIET_NAN = np.uint32(0xFFFF0000), np.uint32(0x7FC00000)
"""The bits of a float32 number that its bfloat16 has, and one that is NaN."""


def bits_of(x: jax.Array) -> jax.Array:
    """bfloat16 as uint32, in the upper 16 bits: the float32 number of the same value."""
    return jax.lax.bitcast_convert_type(x, jnp.uint16).astype(jnp.uint32) << 16


def from_bits(upper: jax.Array) -> jax.Array:
    """The inverse of `bits_of`; the lower 16 bits are 0.

    A conversion of the float32 number, exactly, and no bitcast to 16 bits: XLA:TPU fuses nothing behind such a bitcast
    and writes its result to new memory.
    """
    return jax.lax.bitcast_convert_type(upper, jnp.float32).astype(jnp.bfloat16)


def widen(x: jax.Array) -> jax.Array:
    """bfloat16 to float32, exactly, by a shift."""
    return jax.lax.bitcast_convert_type(bits_of(x), jnp.float32)


def split(x: jax.Array, lower: DTypeLike = jnp.uint16) -> tuple[jax.Array, jax.Array]:
    """float32 to bfloat16 and the bits that it drops. NaN stays NaN; what rounds beyond the largest one is infinite.

    Args:
        x: the numbers.
        lower: uint16 for all 16 bits; uint8 for the upper 8 of them, where the lower 8 are 0.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    upper = jnp.where((bits & 0x7FFFFFFF) > _EXPONENT, QUIET_NAN, (bits + 0x8000) & UPPER)
    kept = bits if jnp.dtype(lower) == jnp.uint16 else bits >> 8
    return from_bits(upper), kept.astype(lower)


def join(upper: jax.Array, lower: jax.Array) -> jax.Array:
    """The inverse of `split`.

    The upper number may have been set by something else since, and the lower bits be those of another: they then move
    the weight by up to half a unit in the last place of the number. Where they would lead out of the numbers around it,
    from 0 downwards or from infinity, they are dropped.
    """
    if lower.dtype == jnp.uint8:
        signed = jax.lax.bitcast_convert_type(lower, jnp.int8).astype(jnp.int32) << 8
    else:
        signed = jax.lax.bitcast_convert_type(lower, jnp.int16).astype(jnp.int32)
    whole = bits_of(upper)
    size = whole & 0x7FFFFFFF
    stale = ((size == 0) & (signed < 0)) | (size >= _EXPONENT)
    return jax.lax.bitcast_convert_type(whole + jnp.where(stale, 0, signed).astype(jnp.uint32), jnp.float32)


def nearest_even(x: jax.Array, drop: int = 16) -> jax.Array:
    """float32 to the bits of bfloat16, see `bits_of`, as a cast rounds, ties to even, but by integers.

    Args:
        x: the numbers.
        drop: how many of the last bits become 0.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    rounded = (bits + ((1 << (drop - 1)) - 1) + ((bits >> drop) & 1)) & np.uint32(2**32 - (1 << drop))
    return jnp.where(jnp.isnan(x), QUIET_NAN, rounded)
