"""Moments in four bits an element: m over the root of v, and v, each on sixteen levels in blocks, dithered."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from adamx.storage.codec import Codec, Quantized, Resolution, Stored
from adamx.storage.coded import Coded
from adamx.storage.dither import fraction
from adamx.storage.largest import ROUNDING, largest_two
from adamx.storage.rounding import to_bfloat16
from adamx.storage.split import from_bits, nearest_even, widen

RATIO = 1.7
"""From one level of v to the next."""

OF_V = tuple(RATIO ** (k - 14) for k in range(15))
OF_M = tuple((k / 7) ** 1.5 for k in range(8))
"""The levels of v and of m over its root, in units of the block's scale; a sixteenth code is that of the largest."""

TOP_OF_V, TOP_OF_M = 15, -8
"""The codes of the largest element of a block."""

CODES = jnp.dtype(jnp.int4)
"""The type of codes; those of v are kept less 8. (Orbax has no uint4.)"""

SCALES = (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float32))
"""The types of the two numbers of a block of m and of v. They tell the two moments apart."""

TINY = float(jnp.finfo(jnp.float32).tiny)
LARGEST_RATIO = 2.0**63
"""Above every m over the root of its v; the product with the root of the largest v is finite."""


@dataclasses.dataclass(frozen=True)
class Int4(Coded):
    """Stores a moment in four bits an element and two numbers a block of neighbours, bfloat16 for m, float32 for v.

    v lies on 15 levels, each 1.7 times the one below, from the second largest element of its block down to 6e-4 of it;
    the largest stands apart. What is smaller is kept at the lowest level: steps of elements whose gradients are below
    a fortieth of their block's are too short, never too long. A v is rounded to the level below or above, so that its
    fourth root is right on average: then 1/√v is, within a few percent.

    m is held over the root of the v that is kept, on 15 levels `±(k/7)^1.5` of the second largest of its block, the
    largest apart. So its error is one of the direction, as large for elements with small gradients as for others, and
    m in `Int4` goes with every storage of v: `mu_dtype=Int4(), nu_dtype=Int8()` is 1.59 bytes of state an element. The
    average of AdaMax, of ADOPT and of parameters has no such v: there it raises.

    Codes are of JAX's type int4: two share a byte on the device. NumPy and checkpoints have a byte for each. The CPU
    kernel steps them; on GPUs and TPUs XLA's own code does, and on a CPU where a leaf has several rows of an odd
    length. A NaN element makes its whole block NaN.

    Attributes:
        block_size: elements of the last axis that share a scale, a power of two from 2 on: an element takes 1/2 byte
            and 4/block_size for m, 8/block_size for v.
        min_size: leaves with fewer elements stay float32, as do those with a last axis shorter than 16.
        exclude: regular expressions; a leaf stays float32 where one of them is found in its path, as for `Int8`.
        seed: of the dither.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> codec = adamx.storage.Int4()
        >>> state = adamx.adam(1e-3, mu_dtype=codec, nu_dtype=codec).init(jnp.zeros((512, 128)))
        >>> state[0].mu.codes.dtype, state[0].nu.codes.shape, adamx.state_bytes(state).total
        (dtype(int4), (512, 128), 71684)
    """

    def resolution(self, square: bool) -> Resolution | None:
        """The lowest level of v, in units of the second largest; None for m, which is held relative to its own v."""
        return Resolution(self.block_size, OF_V[0], apart=True) if square else None

    def types(self, square: bool) -> tuple[jnp.dtype, jnp.dtype]:
        """Four bits; bfloat16 for the numbers of m, float32 for those of v."""
        return CODES, SCALES[square]

    def decode_blocks(self, codes: jax.Array, scale: jax.Array, top: jax.Array) -> jax.Array:
        """The v, or m over the root of the v that is kept beside it."""
        codes, of_m = codes.astype(jnp.int32), scale.dtype == SCALES[False]
        scale, top = scale.astype(jnp.float32), top.astype(jnp.float32)
        if of_m:
            size = _level(jnp.abs(codes), OF_M) * scale
            return jnp.where(codes == TOP_OF_M, top, jnp.where(codes < 0, -size, size))
        k = codes + 8
        return jnp.where(k == TOP_OF_V, top, _level(k, OF_V) * scale)

    def encode_blocks(self, x: jax.Array, bits: jax.Array, like: Quantized) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The inverse."""
        encode = _encode_m if is_over_root(like) else _encode_v
        codes, scale, top = encode(x, jax.lax.stop_gradient(x), bits)
        return codes.astype(CODES), scale, top


def is_over_root(stored: Any) -> bool:
    """Whether a moment is an m that is kept over the root of its v."""
    return isinstance(stored, Quantized) and (stored.codes.dtype, stored.scales.dtype) == (CODES, SCALES[False])


def over_root(m: jax.Array, v: jax.Array) -> jax.Array:
    """The quotient `m / √v`; 0 where v is."""
    limit = jnp.asarray(LARGEST_RATIO, m.dtype)
    return jnp.clip(jnp.where(v == 0, 0, m / jnp.where(v == 0, 1, root_of(v)).astype(m.dtype)), -limit, limit)


def root_of(v: jax.Array) -> jax.Array:
    """`√v`, whose derivative is finite at 0."""
    return jnp.where(v == 0, 0, jnp.sqrt(jnp.where(v == 0, 1, v)))


def decode_beside(codec: Codec, stored: Stored, v: jax.Array, dtype: DTypeLike) -> jax.Array:
    """An m in compute precision, from how it is kept and the v that was kept with it."""
    m = codec.decode(stored, dtype)
    return m * root_of(v).astype(m.dtype) if is_over_root(stored) else m


def encode_beside(codec: Codec, m: jax.Array, like: Stored, bits: jax.Array | None, v: Any) -> Stored:
    """An m as it is kept; v: gives the v that is kept with it, if it is asked for."""
    return codec.encode(over_root(m, v()) if is_over_root(like) else m, like, bits, square=False)


def _level(k: jax.Array, levels: tuple[float, ...]) -> jax.Array:
    """The level with a number, by comparisons: accelerators have no fast way to look one up in a table."""
    found = jnp.full(k.shape, levels[0], jnp.float32)
    for number, level in enumerate(levels[1:], 1):
        found = jnp.where(k >= number, level, found)
    return found


def _below(y: jax.Array, levels: tuple[float, ...]) -> jax.Array:
    """The number of the highest level that is not above y; 0 if all are."""
    number = jnp.zeros(y.shape, jnp.int32)
    for level in levels[1:]:
        number = number + (y >= level)
    return number


def _in_units(size: jax.Array, scale: jax.Array) -> jax.Array:
    """Magnitudes in units of the block's scale; 0 where that is. Codes have no derivative."""
    unit = jax.lax.stop_gradient(scale)
    return size * jnp.where(unit == 0, 0, 1 / jnp.where(unit == 0, 1, unit))


def _encode_v(x: jax.Array, fixed: jax.Array, bits: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Codes, scale and top of blocks of v; fixed: the same, for what has no derivative."""
    top, rest = largest_two(x, ROUNDING)
    least = TINY / OF_V[0]  # or the lowest level would vanish
    scale = jnp.where(rest == 0, 0, jnp.maximum(rest * (1 + ROUNDING), least))
    y = _in_units(fixed, scale)
    k = _below(y, OF_V)
    fourth = tuple(level**0.25 for level in OF_V)
    low = _level(k, fourth)
    up = jnp.sqrt(jnp.sqrt(y)) - low > fraction(bits) * (low * (RATIO**0.25 - 1))
    codes = jnp.minimum(k + up, TOP_OF_V - 1)
    return jnp.where(fixed >= jax.lax.stop_gradient(top) * (1 - ROUNDING), TOP_OF_V, codes) - 8, scale, top


def _encode_m(x: jax.Array, fixed: jax.Array, bits: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The same of m over the root of v; the top has a sign. It is rounded by the threshold of the first element."""
    high, low = jnp.max(x, axis=-1, keepdims=True), jnp.min(x, axis=-1, keepdims=True)
    top = jnp.where(high >= -low, high, low)
    bound = jax.lax.stop_gradient(top) * (1 - ROUNDING)
    at_top = jnp.where(bound < 0, fixed <= bound, fixed >= bound)
    rest = jnp.max(jnp.where(at_top, 0, jnp.abs(x)), axis=-1, keepdims=True)
    # To nearest, so that it stays where it is; by integers, which no compiler leaves out.
    scale = from_bits(nearest_even(jnp.where(rest == 0, 0, jnp.maximum(rest, TINY))))
    y = _in_units(jnp.abs(fixed), widen(scale))
    k = _below(y, OF_M)
    gaps = (*[b - a for a, b in itertools.pairwise(OF_M)], 1.0)
    up = y - _level(k, OF_M) > fraction(bits) * _level(k, gaps)
    codes = jnp.minimum(k + up, len(OF_M) - 1)
    return jnp.where(at_top, TOP_OF_M, jnp.where(fixed < 0, -codes, codes)), scale, to_bfloat16(top, bits[..., :1])
