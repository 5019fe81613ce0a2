"""Moments in one byte an element: companded codes in blocks whose largest element stands apart, dithered."""

import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from adamx import hyperparameters
from adamx.storage import blocks
from adamx.storage.codec import Quantized, Stored
from adamx.storage.dither import fraction
from adamx.storage.floats import Float

TIE = 1 - 2.0**-20
"""What is this close to the largest of a block is the largest: it may be computed twice and rounded otherwise."""

SHORTEST = 16
"""Last axes below this stay float32: two numbers a block would weigh more than the codes save."""

LOWEST = {"int8": 0, "uint8": 9}
"""The lowest code of a non-zero element; v below it would be known to a factor only."""


class Int8(NamedTuple):
    """Stores a moment in one byte an element and two float32 numbers a block of neighbours.

    In units of the block's scale, `m = ± k²` with k in 0..126 and `v = k⁴` with k in 9..254: small numbers lie closer
    together than large ones. The largest element of a block has the code 127 or 255 and its own number, and the scale
    is that of the others, so that an outlier does not take the codes of its neighbours. Where a block decays, its codes
    stay and its two numbers shrink. A non-zero v is never kept as zero. Powers are integers below 2^32 and each
    floating operation is rounded by itself: every compiler and processor gives the same codes.

    A NaN or infinite element makes its whole block non-finite.

    Attributes:
        block_size: elements of the last axis that share a scale: 1 + 8/block_size bytes an element.
        min_size: leaves with fewer elements stay float32, as do those with a last axis shorter than 16.
        exclude: regular expressions; a leaf stays float32 where one of them is found in its path, "encoder/norm/scale".
        seed: of the dither.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> codec = adamx.storage.Int8(exclude=("embedding", "norm"))
        >>> tx = adamx.adam(1e-3, mu_dtype=codec, nu_dtype=codec)
        >>> state = tx.init({"w": jnp.zeros((64, 128)), "norm": jnp.zeros(128)})
        >>> state[0].mu["w"].codes.dtype, state[0].mu["norm"].dtype
        (dtype('int8'), dtype('float32'))
    """

    block_size: int = 128
    min_size: int = 4096
    exclude: tuple[str, ...] = ()
    seed: int = 0

    @property
    def dithered(self) -> bool:
        """Always."""
        return True

    def check(self, name: str) -> None:
        """Raises a TypeError or ValueError that names the argument and what is wrong with this codec."""
        for field, lowest in (("block_size", 2), ("min_size", 0)):
            hyperparameters.integer(f"{name}: {field}", getattr(self, field), lowest)
        exclude: Any = self.exclude
        if not isinstance(exclude, tuple) or not all(isinstance(pattern, str) for pattern in exclude):
            raise TypeError(f"{name}: exclude must be a tuple of regular expressions, got {exclude!r}")
        for pattern in exclude:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{name}: exclude: {pattern!r} is not a regular expression, {error}") from None

    def zeros(self, like: Any, dtype: DTypeLike, *, square: bool, where: str = "a leaf") -> Stored:
        """The moment of a parameter before the first step, with the parameter's shape and placement."""
        shape = tuple(getattr(like, "shape", ()))
        small = len(shape) == 0 or shape[-1] < SHORTEST or math.prod(shape) < self.min_size
        complex_moment = not square and jnp.issubdtype(dtype, jnp.complexfloating)
        if small or complex_moment or any(re.search(pattern, where) for pattern in self.exclude):
            return Float().zeros(like, dtype, square=square, where=where)
        codes = jnp.zeros_like(like, dtype=jnp.uint8 if square else jnp.int8)
        scale, top = (blocks.per_block(codes, self.block_size, jnp.float32) for _ in range(2))
        return Quantized(codes, scale, top)

    def decode(self, stored: Stored, dtype: DTypeLike) -> jax.Array:
        """The moment in compute precision."""
        if not isinstance(stored, Quantized):
            return Float().decode(stored, dtype)
        assert stored.top is not None
        codes = blocks.split(stored.codes, self.block_size)
        moment = decode_blocks(codes, stored.scale[..., None], stored.top[..., None])
        return blocks.merge(moment, stored.codes.shape).astype(dtype)

    def encode(self, moment: jax.Array, like: Stored, bits: jax.Array | None, *, square: bool) -> Stored:
        """The moment as it is kept."""
        if not isinstance(like, Quantized):
            return Float().encode(moment, like, None, square=square)
        assert bits is not None
        x, random = (blocks.split(a, self.block_size) for a in (moment.astype(jnp.float32), bits))
        codes, scale, top = encode_blocks(x, random, like.codes.dtype)
        return Quantized(blocks.merge(codes, moment.shape), scale[..., 0], top[..., 0])

    def largest(self, stored: Stored) -> float:
        """The largest finite float32 number, or that of a leaf that stays as it is."""
        return float(jnp.finfo(jnp.float32).max) if isinstance(stored, Quantized) else Float().largest(stored)


def decode_blocks(codes: jax.Array, scale: jax.Array, top: jax.Array) -> jax.Array:
    """The moment as float32, from blocks along the last axis and their two numbers, which have 1 in its place."""
    signed = codes.astype(jnp.int32)
    k = jnp.abs(signed)
    size = jnp.where(k == _top_code(codes.dtype), top, _power(k, codes.dtype) * scale)
    return jnp.where(signed < 0, -size, size)


def encode_blocks(x: jax.Array, bits: jax.Array, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The inverse, rounded against thresholds: codes of a dtype, scale and top."""
    highest = _top_code(dtype) - 1
    size = jnp.abs(x)
    top = jnp.max(size, axis=-1, keepdims=True)
    at_top = size >= top * TIE
    rest = jnp.max(jnp.where(at_top, 0, size), axis=-1, keepdims=True)
    unit = 1 / _integer_power(highest, dtype)  # multiplied: compilers differ in how they divide by a constant
    scale = jnp.maximum(rest * unit, float(jnp.finfo(jnp.float32).tiny))
    inverse = 1 / scale  # for the whole block: a multiplication an element instead of a division
    k = jnp.minimum(_round(size * inverse, fraction(bits), dtype), highest)
    k = jnp.where(at_top, highest + 1, jnp.maximum(k, LOWEST[dtype.name]))
    return jnp.where(x < 0, -k, jnp.where(x == 0, 0, k)).astype(dtype), scale, top


def _top_code(dtype: DTypeLike) -> int:
    return int(jnp.iinfo(dtype).max)


def _integer_power(k: Any, dtype: DTypeLike) -> Any:
    """`k⁴` for v, `k²` for m."""
    return k * k * k * k if jnp.issubdtype(dtype, jnp.unsignedinteger) else k * k


def _power(k: jax.Array, dtype: DTypeLike) -> jax.Array:
    """The same as float32, by integers below 2^32, which no compiler can contract into the sum around them."""
    return _integer_power(k.astype(jnp.uint32), dtype).astype(jnp.float32)


def _round(y: jax.Array, threshold: jax.Array, dtype: DTypeLike) -> jax.Array:
    """The code below or above y, in units of the scale: above where the fraction between the two exceeds the threshold.

    A root that is rounded otherwise elsewhere may be off by one code; comparing powers puts it right.
    """
    root = jnp.sqrt(jnp.sqrt(y)) if jnp.issubdtype(dtype, jnp.unsignedinteger) else jnp.sqrt(y)
    k = jnp.minimum(root, _top_code(dtype) - 1).astype(jnp.int32)
    k = k - (_power(k, dtype) > y).astype(jnp.int32)
    k = k + (_power(k + 1, dtype) <= y).astype(jnp.int32)
    low, high = _power(k, dtype), _power(k + 1, dtype)
    return k + (y - low > threshold * (high - low)).astype(jnp.int32)
