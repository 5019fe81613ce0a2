"""A float32 number as a bfloat16 number and the 16 bits that it drops.

The bfloat16 number is the nearest one, ties away from zero: then the dropped bits, read with a sign, lead back from it
to the one float32 number. Rounding ties to even would leave two for some. Integer operations throughout: a compiler may
skip a rounding to bfloat16 and back, and does, but not a shift.
"""

import jax
import jax.numpy as jnp
import numpy as np

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


def split(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """float32 to bfloat16 and uint16. NaN stays NaN; what rounds beyond the largest bfloat16 is infinite there."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    upper = jnp.where((bits & 0x7FFFFFFF) > _EXPONENT, QUIET_NAN, (bits + 0x8000) & UPPER)
    return from_bits(upper), bits.astype(jnp.uint16)


def join(upper: jax.Array, lower: jax.Array) -> jax.Array:
    """The inverse of `split`.

    The upper number may have been set by something else since, and the lower bits be those of another: they then move
    the weight by up to half a unit in the last place of the number. Where they would lead out of the numbers around it,
    from 0 downwards or from infinity, they are dropped.
    """
    signed = jax.lax.bitcast_convert_type(lower, jnp.int16).astype(jnp.int32)
    whole = bits_of(upper)
    size = whole & 0x7FFFFFFF
    stale = ((size == 0) & (signed < 0)) | (size >= _EXPONENT)
    return jax.lax.bitcast_convert_type(whole + jnp.where(stale, 0, signed).astype(jnp.uint32), jnp.float32)


def nearest_even(x: jax.Array) -> jax.Array:
    """float32 to the bits of bfloat16, see `bits_of`, as a cast rounds, ties to even, but by integers."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & UPPER
    return jnp.where(jnp.isnan(x), QUIET_NAN, rounded)
