"""Moments held as floating numbers."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from adamx import numerics
from adamx.storage import blocks
from adamx.storage.codec import HALF_BITS, Quantized, Resolution, Stored, wrong_codes
from adamx.storage.rounding import to_bfloat16, to_narrow

BLOCK = 64
"""Elements that share a scale where the dtype alone has not the range for the moment."""


class Float(NamedTuple):
    """Stores a moment in a floating dtype.

    bfloat16 has the range of float32 and goes with every storage of the other moment. float16 and float8 hold both
    moments relative to a power of two for each 64 neighbours, and an m in them needs a v in blocks as well: see
    `scale_by_moments`.

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
        return Resolution(BLOCK, float(jnp.finfo(self.dtype).smallest_subnormal) / _top(self.dtype))

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
        return Quantized(codes, blocks.per_block(codes, BLOCK, 1, jnp.bfloat16, where))

    def decode(self, stored: Stored, dtype: DTypeLike) -> jax.Array:
        """The moment in compute precision."""
        if not isinstance(stored, Quantized):
            return numerics.to_dtype(stored, dtype)
        if stored.apart:
            raise wrong_codes("floating codes", "those of adamx.storage.Int8")
        blocks.check_scales(stored.scales, stored.codes.shape, BLOCK)
        codes = blocks.split(stored.codes.astype(jnp.float32), BLOCK)
        scaled = codes * stored.scales.astype(jnp.float32)
        return blocks.merge(scaled, stored.codes.shape).astype(dtype)

    def encode(self, moment: jax.Array, like: Stored, bits: jax.Array | None, *, square: bool) -> Stored:
        """The moment as it is kept, in the dtype in which it was kept before."""
        if isinstance(like, Quantized):
            return _encode_scaled(moment.astype(jnp.float32), like.codes.dtype, bits, square)
        if like.dtype == jnp.bfloat16:
            return to_bfloat16(moment.astype(jnp.float32), bits, square=square)
        if jnp.finfo(like.dtype).bits <= HALF_BITS:
            return to_narrow(moment.astype(jnp.float32), like.dtype, bits, square=square)
        return moment if moment.dtype == like.dtype else moment.astype(like.dtype)

    def largest(self, stored: Stored) -> float:
        """The largest finite number of the dtype; the last before 2^128 where blocks have a scale."""
        if isinstance(stored, Quantized):
            return (2 - float(jnp.finfo(stored.codes.dtype).eps)) * 2.0**127
        return float(jnp.finfo(stored.dtype).max)


def _shares_a_scale(dtype: Any) -> bool:
    """Whether the dtype alone has not the range for a moment."""
    return jnp.finfo(dtype).bits <= HALF_BITS and jnp.dtype(dtype) != jnp.bfloat16


def _top(dtype: Any) -> float:
    """The power of two to which the scale takes the largest of a block, from below: half the dtype's last one."""
    return 2.0 ** (jnp.finfo(dtype).maxexp - 2)


def _encode_scaled(moment: jax.Array, dtype: jnp.dtype, bits: jax.Array | None, square: bool) -> Quantized:
    """Codes in units of a power of two such that the largest of a block lies just below the largest of the dtype.

    The unit comes from the exponent alone: what is divided by an epsilon on the way overflows at one end of float32 and
    vanishes at the other.
    """
    x = blocks.split(moment, BLOCK)
    largest = numerics.power_of_two(jnp.max(jnp.abs(x), axis=-1, keepdims=True))
    scale = jnp.maximum(largest / _top(dtype), float(jnp.finfo(jnp.float32).tiny))
    thresholds = None if bits is None else blocks.split(bits, BLOCK)
    codes = to_narrow(x / scale, dtype, thresholds, square=square)
    return Quantized(blocks.merge(codes, moment.shape), scale.astype(jnp.bfloat16))
