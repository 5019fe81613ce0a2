"""Moments held as floating numbers."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from adamx import numerics
from adamx.storage import blocks
from adamx.storage.codec import HALF_BITS, Quantized, Resolution, Stored, wrong_codes
from adamx.storage.largest import ROUNDING, largest_two
from adamx.storage.rounding import to_bfloat16, to_narrow

BLOCK = 64
"""Elements that share a scale where the dtype alone has not the range for the moment."""

BEND = 2.0**-3
"""In units of a block's scale: above this magnitudes of float8 are kept about as squares, below it about in proportion.

Lower ones give more precision and less range.
"""


class Float(NamedTuple):
    """Stores a moment in a floating dtype.

    bfloat16 has the range of float32 and goes with every storage of the other moment. float16 and float8 hold both
    moments relative to a power of two for each 64 neighbours, and an m in them needs a v in blocks as well: see
    `scale_by_moments`.

    Of float8 the largest element of each block has a bfloat16 number of its own and the largest code, and the power of
    two is that of the others. A magnitude y in units of it is kept as a multiple of `y² + y/8`, in float8_e5m2 of the
    square of that. So the range that a moment does not need becomes precision, as in the range expansion of COAT
    (arXiv 2410.19313).

    Attributes:
        dtype: a real floating dtype; None: float32, or float64 for 64-bit parameters. A complex moment takes the
            complex dtype of the same width.
        stochastic: round by dither; False: to nearest, which stalls where a step changes less than half a unit in the
            last place. None: the rule of `mu_dtype` and `nu_dtype`.
        seed: of the dither.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> nearest = adamx.storage.Float("bfloat16", stochastic=False)  # what optax's mu_dtype does
        >>> adamx.adam(1e-3, mu_dtype=nearest, nu_dtype="bfloat16").init(jnp.zeros(2))[0].nu
        Array([0, 0], dtype=bfloat16)
    """

    dtype: Any = None
    stochastic: bool | None = None
    seed: int = 0

    @property
    def dithered(self) -> bool:
        """Whether `encode` wants random bits."""
        return self.dtype is not None and jnp.finfo(self.dtype).bits <= HALF_BITS and self.stochastic is not False

    def resolution(self, square: bool) -> Resolution | None:  # noqa: ARG002 - the same for both
        """The same for m and v: the least number of the dtype, in units of the block's scale; None in wide dtypes."""
        if self.dtype is None or not _shares_a_scale(self.dtype):
            return None
        smallest = float(jnp.finfo(self.dtype).smallest_subnormal)
        if not _apart(self.dtype):
            return Resolution(BLOCK, smallest / _top(self.dtype))
        return Resolution(BLOCK, _opened(smallest, self.dtype, math.sqrt), apart=True)

    def zeros(self, like: Any, dtype: DTypeLike, *, square: bool, where: str = "a leaf") -> Stored:
        """The moment of a parameter before the first step, with the parameter's shape and placement.

        Raises:
            TypeError: a complex moment asked for in a half-precision dtype.
        """
        wide = jnp.dtype(jax.dtypes.canonicalize_dtype(numerics.compute_dtype(dtype)))
        if not square and jnp.issubdtype(wide, jnp.complexfloating):
            if self.dtype is not None and jnp.finfo(self.dtype).bits <= HALF_BITS:
                raise TypeError(
                    f"the complex moment at {where} cannot be stored as {self.dtype}: leave mu_dtype, or the dtype of "
                    "accumulate and with_ema, as None"
                )
            return jnp.zeros_like(like, dtype=numerics.compute_dtype(self.dtype or wide, jnp.complex64))
        kept = jnp.dtype(self.dtype or numerics.real_dtype(wide))
        if not _shares_a_scale(kept):
            return jnp.zeros_like(like, dtype=kept)
        if not getattr(like, "shape", ()):
            return jnp.zeros_like(like, dtype=jnp.float32)
        codes = jnp.zeros_like(like, dtype=kept)
        return Quantized(codes, blocks.per_block(codes, BLOCK, 1 + _apart(kept), jnp.bfloat16, where))

    def decode(self, stored: Stored, dtype: DTypeLike) -> jax.Array:
        """The moment in compute precision."""
        if not isinstance(stored, Quantized):
            return numerics.to_dtype(stored, dtype)
        dtype_kept = stored.codes.dtype
        if not jnp.issubdtype(dtype_kept, jnp.floating):
            raise wrong_codes("floating codes", "those of adamx.storage.Int8")
        if self.dtype is not None and _apart(dtype_kept) != stored.apart:
            raise wrong_codes(f"{dtype_kept} with two numbers for each block", f"{stored.scales.shape[-1]} for each")
        blocks.check_scales(stored.scales, stored.codes.shape, BLOCK)
        codes, scales = blocks.split(stored.codes.astype(jnp.float32), BLOCK), stored.scales.astype(jnp.float32)
        scaled = _decode_apart(codes, scales, dtype_kept) if stored.apart else codes * scales
        return blocks.merge(scaled, stored.codes.shape).astype(dtype)

    def encode(self, moment: jax.Array, like: Stored, bits: jax.Array | None, *, square: bool) -> Stored:
        """The moment as it is kept, in the dtype in which it was kept before."""
        if isinstance(like, Quantized):
            x = blocks.split(moment.astype(jnp.float32), BLOCK)
            thresholds = None if bits is None else blocks.split(bits, BLOCK)
            encoded = (_encode_apart if like.apart else _encode_scaled)(x, like.codes.dtype, thresholds, square)
            return Quantized(blocks.merge(encoded.codes, moment.shape), encoded.scales)
        if like.dtype == jnp.bfloat16:
            return to_bfloat16(moment.astype(jnp.float32), bits, square=square)
        if jnp.finfo(like.dtype).bits <= HALF_BITS:
            return to_narrow(moment.astype(jnp.float32), like.dtype, bits, square=square)
        return moment if moment.dtype == like.dtype else moment.astype(like.dtype)

    def largest(self, stored: Stored) -> float:
        """The largest finite number of the dtype; the last before 2^128 where blocks have a scale, 2^127 in float8.

        There the second largest of a block may be rounded to the next power of two.
        """
        if isinstance(stored, Quantized):
            return (1 if stored.apart else 2 - float(jnp.finfo(stored.codes.dtype).eps)) * 2.0**127
        return float(jnp.finfo(stored.dtype).max)


def _shares_a_scale(dtype: Any) -> bool:
    """Whether the dtype alone has not the range for a moment."""
    return jnp.finfo(dtype).bits <= HALF_BITS and jnp.dtype(dtype) != jnp.bfloat16


def _apart(dtype: Any) -> bool:
    """Whether the largest of a block stands apart and the others use the range of the dtype for precision: float8."""
    return jnp.finfo(dtype).bits < HALF_BITS


def _top(dtype: Any) -> float:
    """The power of two to which the scale takes the largest of a block, from below: half the dtype's last one."""
    return 2.0 ** (jnp.finfo(dtype).maxexp - 2)


def _curve(dtype: Any) -> tuple[float, float]:
    """The power of a dtype, 1 or 2, and by what it is multiplied so that 2 has the last code but one."""
    info = jnp.finfo(dtype)
    largest = float(info.max)
    last = largest - 2.0 ** math.floor(math.log2(largest)) * float(info.eps)
    power = 1.0 if info.nmant > 2 else 2.0
    return power, last / (2 * (2 + BEND)) ** power


def _closed(y: jax.Array, dtype: Any) -> jax.Array:
    """What a magnitude in units of the scale is kept as; products that no compiler contracts into a sum."""
    power, unit = _curve(dtype)
    z = y * (y + BEND)
    return (z if power == 1 else z * z) * unit


def _opened(kept: Any, dtype: Any, sqrt: Callable[[Any], Any] = jnp.sqrt) -> Any:
    """The inverse, without a difference."""
    power, unit = _curve(dtype)
    z = kept / unit
    z = z if power == 1 else sqrt(z)
    return 2 * z / (BEND + sqrt(BEND**2 + 4 * z))


def _decode_apart(codes: jax.Array, scales: jax.Array, dtype: Any) -> jax.Array:
    """The moment in float32 from codes in blocks, as float32."""
    scale, top = blocks.columns(scales)
    size = jnp.abs(codes)
    return jnp.copysign(jnp.where(size == float(jnp.finfo(dtype).max), top, _opened(size, dtype) * scale), codes)


def _encode_apart(x: jax.Array, dtype: jnp.dtype, bits: jax.Array | None, square: bool) -> Quantized:
    """Codes in units of a power of two of the second largest, and the largest in bfloat16, dithered by the first bits.

    Args:
        x: blocks along the last axis, float32.
        dtype: of the codes.
        bits: 2^32 times the thresholds, in blocks; None: to nearest.
        square: as for `encode`.
    """
    size = jnp.abs(x)
    top, rest = largest_two(size, ROUNDING)
    scale = jnp.maximum(numerics.power_of_two(rest), float(jnp.finfo(jnp.float32).tiny))
    closed = _closed(jnp.minimum(size, rest) / scale, dtype)
    closed = jnp.maximum(closed, jnp.where(size > 0, float(jnp.finfo(jnp.float32).tiny), 0))  # it may have vanished
    read = functools.partial(_opened, dtype=dtype)  # rounded so that what is read has no bias: errors of v add up
    codes = to_narrow(jnp.copysign(closed, x), dtype, bits, square=square, read=read)
    largest = jnp.copysign(jnp.full_like(x, float(jnp.finfo(dtype).max)), x).astype(dtype)
    kept = to_bfloat16(top, None if bits is None else bits[..., :1], square=square)
    codes = jnp.where((size >= top * (1 - ROUNDING)) & (size > 0), largest, codes)
    return Quantized(codes, blocks.together(scale.astype(jnp.bfloat16), kept))


def _encode_scaled(x: jax.Array, dtype: jnp.dtype, bits: jax.Array | None, square: bool) -> Quantized:
    """Codes in units of a power of two such that the largest of a block lies just below the largest of the dtype.

    The unit comes from the exponent alone: what is divided by an epsilon on the way overflows at one end of float32 and
    vanishes at the other. Arguments as for `_encode_apart`.
    """
    largest = numerics.power_of_two(jnp.max(jnp.abs(x), axis=-1, keepdims=True))
    scale = jnp.maximum(largest / _top(dtype), float(jnp.finfo(jnp.float32).tiny))
    return Quantized(to_narrow(x / scale, dtype, bits, square=square), scale.astype(jnp.bfloat16))
