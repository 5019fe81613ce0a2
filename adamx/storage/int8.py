"""Moments in one byte an element: floating codes in blocks whose largest element stands apart, dithered."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from adamx.storage.codec import Quantized, Resolution
from adamx.storage.coded import Coded
from adamx.storage.largest import ROUNDING, largest_two

BEND = {"int8": 0, "uint8": 160}
"""The code up to which a power of two has 16 codes; above it has 32."""

LOWEST = {"int8": 0, "uint8": 8}
"""The lowest code of a non-zero element; v below it would be known to a factor only."""

DIGITS = 19
"""Bits of a float32 number behind the four digits of a code."""

ONE = 0x3F800000
"""The bits of 1."""


@dataclasses.dataclass(frozen=True)
class Int8(Coded):
    """Stores a moment in one byte per element and two float32 numbers per block of neighbours.

    In units of the block's scale, a magnitude is `z - 1`, where z counts floating-point numbers from 1 on: with 5 bits
    after the leading one for m, up to 15.5; for v with 4 up to 1,024 and 5 from there to 7,936. So codes are linear
    near zero, and 1.6 to 3 % apart where most elements are. The largest element of a block has the code 127 or 255 and
    a float32 number of its own. If it stands out, the scale is that of the others. If a block decays, its codes stay
    and its two numbers shrink. A v above 0 is never stored as 0: 0.5 is the smallest. A code is rounded by adding a
    threshold to the bits of z, so that every compiler and processor gives equal codes.

    A NaN or infinite element makes its whole block non-finite.

    Attributes:
        block_size: elements of the last axis that share a scale, a power of two from 2 on: 1 + 8/block_size bytes an
            element.
        min_size: leaves with fewer elements stay float32, as do those with a last axis shorter than 16. Smaller ones
            than the default's 65,536 cost time when quantized: up to twice that of float32, see docs/performance.md.
        exclude: regular expressions; a leaf stays float32 where one of them is found in its path, "encoder/norm/scale".
            One that is found in no path raises at init; see `adamx.match`.
        seed: of the dither.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> codec = adamx.storage.Int8(exclude=("norm",))
        >>> tx = adamx.adam(1e-3, mu_dtype=codec, nu_dtype=codec)
        >>> state = tx.init({"w": jnp.zeros((512, 128)), "norm": jnp.zeros(128)})
        >>> state[0].mu["w"].codes.dtype, state[0].mu["norm"].dtype
        (dtype('int8'), dtype('float32'))
    """

    def resolution(self, square: bool) -> Resolution:
        """The lowest code that is not 0, in units of the code below the top."""
        dtype = jnp.dtype(jnp.uint8 if square else jnp.int8)
        lowest = _constant(max(LOWEST[dtype.name], 1), dtype)
        return Resolution(self.block_size, lowest / _constant(_top_code(dtype) - 1, dtype), apart=True)

    def types(self, square: bool) -> tuple[jnp.dtype, jnp.dtype]:
        """One byte, signed for m, and float32."""
        return jnp.dtype(jnp.uint8 if square else jnp.int8), jnp.dtype(jnp.float32)

    def decode_blocks(self, codes: jax.Array, scale: jax.Array, top: jax.Array) -> jax.Array:
        """The moment in blocks, see the function."""
        return decode_blocks(codes, scale, top)

    def encode_blocks(self, x: jax.Array, bits: jax.Array, like: Quantized) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The inverse."""
        return encode_blocks(x, bits, like.codes.dtype)


def decode_blocks(codes: jax.Array, scale: jax.Array, top: jax.Array) -> jax.Array:
    """The moment as float32, from blocks along the last axis and their two numbers, which have 1 in its place."""
    signed = codes.astype(jnp.int32)
    k = jnp.abs(signed)
    size = jnp.where(k == _top_code(codes.dtype), top, _magnitude(k, codes.dtype) * scale)
    return jnp.where(signed < 0, -size, size)


def encode_blocks(
    x: jax.Array, bits: jax.Array, dtype: jnp.dtype, largest: tuple[jax.Array, jax.Array] | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The inverse, rounded against thresholds: codes of a dtype, scale and top.

    Args:
        x: blocks along the last axis, float32.
        bits: 2^32 times the thresholds.
        dtype: of the codes.
        largest: what `largest_two` gives for x; None: find them.
    """
    size = jnp.abs(x)
    top, rest = largest_two(size, ROUNDING) if largest is None else largest
    most, second = (_constant(_top_code(dtype) - i, dtype) for i in (0, 1))
    # Whatever is rounded on the way, the largest is at least `most` units, and the second largest at most `second`, or
    # what lies between them is as likely to become the largest as it is close to it. Tiny blocks have codes alone.
    scale = jnp.minimum(top * ((1 - 2 * ROUNDING) / most), rest * ((1 + ROUNDING) / second))
    scale = jnp.maximum(scale, 2 * float(jnp.finfo(jnp.float32).tiny))  # half of it is the least v
    y = size * (1 / scale)  # a division for the whole block
    z = 1 + _at_most(y, most)
    k = jnp.maximum(_round(z, bits, dtype), LOWEST[dtype.name])
    return jnp.where(x < 0, -k, jnp.where(x == 0, 0, k)).astype(dtype), scale, top


def _at_most(y: jax.Array, limit: float) -> jax.Array:
    """The smaller of two positive numbers, by their bits: no compiler contracts a product into a sum through them."""
    bits, most = jax.lax.bitcast_convert_type(y, jnp.uint32), np.float32(limit).view(np.uint32)
    return jax.lax.bitcast_convert_type(jnp.where(bits < most, bits, most), jnp.float32)  # Mosaic lacks this minimum


def _top_code(dtype: DTypeLike) -> int:
    return int(jnp.iinfo(dtype).max)


def _digits(k: Any, dtype: jnp.dtype) -> tuple[Any, Any]:
    """How far the bits of z lie above those of 1, with four digits and, from the bend on, with five: the smaller."""
    return k << DIGITS, (k + BEND[dtype.name]) << (DIGITS - 1)


def _magnitude(k: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """`z - 1` of a code, in units of the scale."""
    return jax.lax.bitcast_convert_type(ONE + jnp.minimum(*_digits(k, dtype)), jnp.float32) - 1


def _constant(k: int, dtype: jnp.dtype) -> float:
    """The same of one code that is known."""
    return float(np.int32(ONE + min(_digits(k, dtype))).view(np.float32)) - 1


def _round(z: jax.Array, bits: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The code below or above z: above where the fraction between the two exceeds the threshold."""
    digits = jax.lax.bitcast_convert_type(z, jnp.int32) - ONE
    digits = jnp.maximum(digits, 2 * digits - (BEND[dtype.name] << DIGITS))
    return (digits + (~bits >> (32 - DIGITS)).astype(jnp.int32)) >> DIGITS
