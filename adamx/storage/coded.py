"""What codecs of integers in blocks have in common: `Int8` and `Int4`."""

import abc
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from adamx import hyperparameters
from adamx.patterns import check_all_match, check_patterns, first_match
from adamx.storage import blocks
from adamx.storage.codec import Quantized, Stored, precision, wrong_codes
from adamx.storage.floats import Float
from adamx.trees import Tree

SHORTEST = 16
"""Last axes below this stay float32: two numbers a block would weigh more than the codes save."""


@dataclasses.dataclass(frozen=True)
class Coded(abc.ABC):
    """A codec of integers in blocks of the last axis, with a scale and the largest element beside each block.

    Attributes:
        block_size: elements of the last axis that share a scale.
        min_size: leaves with fewer elements stay float32.
        exclude: patterns of paths that stay float32.
        seed: of the dither.
    """

    block_size: int = 128
    min_size: int = 65_536
    exclude: tuple[str, ...] = ()
    seed: int = 0

    @property
    def dithered(self) -> bool:
        """Always."""
        return True

    @abc.abstractmethod
    def types(self, square: bool) -> tuple[jnp.dtype, jnp.dtype]:
        """The dtypes of the codes of m or v, and of the numbers of a block."""

    @abc.abstractmethod
    def decode_blocks(self, codes: jax.Array, scale: jax.Array, top: jax.Array) -> jax.Array:
        """The moment in float32, from blocks along the last axis and their two numbers, which have 1 in its place.

        The types tell whether it is m or v.
        """

    @abc.abstractmethod
    def encode_blocks(self, x: jax.Array, bits: jax.Array, like: Quantized) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The inverse, rounded against thresholds: codes, scale and top.

        Args:
            x: blocks along the last axis, float32.
            bits: 2^32 times the thresholds.
            like: has the types.
        """

    def check(self, name: str) -> None:
        """Raises a TypeError or ValueError that names the argument and what is wrong with this codec."""
        for field, lowest in (("block_size", 2), ("min_size", 0)):
            hyperparameters.integer(f"{name}: {field}", getattr(self, field), lowest)
        if self.block_size & (self.block_size - 1):
            raise ValueError(f"{name}: block_size must be a power of two, got {self.block_size}")
        exclude: Any = self.exclude
        if not isinstance(exclude, tuple) or not all(isinstance(pattern, str) for pattern in exclude):
            raise TypeError(f"{name}: exclude must be a tuple of regular expressions, got {exclude!r}")
        check_patterns(f"{name}: exclude", exclude)

    def check_paths(self, params: Tree) -> None:
        """Raises a ValueError if a pattern of `exclude` is found in no path of the parameters."""
        check_all_match(f"{type(self).__name__}: exclude", self.exclude, params)

    def zeros(self, like: Any, dtype: DTypeLike, *, square: bool, where: str = "a leaf") -> Stored:
        """The moment of a parameter before the first step, with the parameter's shape and placement."""
        shape = tuple(getattr(like, "shape", ()))
        small = len(shape) == 0 or shape[-1] < SHORTEST or math.prod(shape) < self.min_size
        complex_moment = not square and jnp.issubdtype(dtype, jnp.complexfloating)
        if small or complex_moment or first_match(self.exclude, where) is not None:
            return Float().zeros(like, dtype, square=square, where=where)
        of_codes, of_scales = self.types(square)
        zeros = jnp.zeros_like(like, dtype=of_codes)
        return Quantized(zeros, blocks.per_block(zeros, self.block_size, 2, of_scales, where))

    def decode(self, stored: Stored, dtype: DTypeLike) -> jax.Array:
        """The moment in compute precision, as `decode_blocks` gives it."""
        if not isinstance(stored, Quantized):
            return Float().decode(stored, dtype)
        if not stored.apart or stored.codes.dtype not in {self.types(square)[0] for square in (False, True)}:
            raise wrong_codes(f"those of adamx.storage.{type(self).__name__}", f"{stored.codes.dtype} codes")
        blocks.check_scales(stored.scales, stored.codes.shape, self.block_size)
        codes = blocks.split(stored.codes, self.block_size)
        moment = self.decode_blocks(codes, *blocks.columns(stored.scales))
        return blocks.merge(moment, stored.codes.shape).astype(dtype)

    def encode(self, moment: jax.Array, like: Stored, bits: jax.Array | None, *, square: bool) -> Stored:
        """The moment as it is kept."""
        if not isinstance(like, Quantized):
            return Float().encode(moment, like, None, square=square)
        assert bits is not None
        x, random = (blocks.split(a, self.block_size) for a in (moment.astype(jnp.float32), bits))
        codes, *numbers = self.encode_blocks(x, random, like)
        return Quantized(blocks.merge(codes, moment.shape), blocks.together(*numbers))

    def largest(self, stored: Stored) -> float:
        """The largest finite float32 number, or that of a leaf that stays as it is."""
        return float(jnp.finfo(precision(stored)).max)
