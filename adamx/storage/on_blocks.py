"""Codecs on arrays that are seen in blocks already: tiles of the kernels, and leaves that XLA steps in blocks."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from adamx.storage import blocks
from adamx.storage.codec import Codec, Quantized, Stored
from adamx.storage.floats import Float
from adamx.storage.int8 import Int8, decode_blocks, encode_blocks


class View(NamedTuple):
    """A leaf in blocks, (..., n) as (..., blocks, size).

    Attributes:
        shape: of the leaf.
        size: elements of a block.
        rows: how many of the last axis but one are split off and stand behind the blocks: (..., rows, n) as
            (..., 1, blocks, rows, size); 1: as above.
    """

    shape: tuple[int, ...]
    size: int
    rows: int = 1

    def split(self, x: jax.Array, size: int | None = None) -> jax.Array:
        """An array with a number an element in blocks; with `size=1` one with a number a block."""
        if self.rows > 1:
            x = x.reshape(*self.shape[:-2], self.shape[-2] // self.rows, self.rows, x.shape[-1])
        x = blocks.split(x, self.size if size is None else size)
        return x if self.rows == 1 else jnp.swapaxes(x, -3, -2)

    def merge(self, x: jax.Array, length: int | None = None) -> jax.Array:
        """The inverse, for a last axis of this length."""
        x = x if self.rows == 1 else jnp.swapaxes(x, -3, -2)
        length = self.shape[-1] if length is None else length
        x = blocks.merge(x, (*x.shape[:-2], length))
        return x if self.rows == 1 else x.reshape(*self.shape[:-1], length)

    def split_all(self, stored: Quantized) -> Quantized:
        """A moment in blocks."""
        assert stored.top is not None
        return Quantized(self.split(stored.codes), self.split(stored.scale, 1), self.split(stored.top, 1))

    def merge_all(self, stored: Quantized) -> Quantized:
        """The inverse."""
        assert stored.top is not None
        count = blocks.count(self.shape, self.size)
        return Quantized(self.merge(stored.codes), self.merge(stored.scale, count), self.merge(stored.top, count))


class OnBlocks(NamedTuple):
    """A codec on an array in blocks: of what is quantized the last axis is one block, and its numbers have 1 there.

    Attributes:
        codec: of the leaf, `Float` or `Int8`.
        view: how a whole leaf is brought into blocks and back; None: arrays come and go in blocks.
        found: what `largest_two` gives for the moment that is encoded; None: it is found then.
    """

    codec: Codec
    view: View | None = None
    found: tuple[jax.Array, jax.Array] | None = None

    @property
    def dithered(self) -> bool:
        """As that of the leaf."""
        return self.codec.dithered

    @property
    def seed(self) -> int:
        """As that of the leaf."""
        return self.codec.seed

    def zeros(self, like: Any, dtype: DTypeLike, *, square: bool, where: str = "a leaf") -> Stored:
        """As that of the leaf."""
        return self.codec.zeros(like, dtype, square=square, where=where)

    def decode(self, stored: Stored, dtype: DTypeLike) -> jax.Array:
        """The moment in compute precision."""
        if not isinstance(stored, Quantized):
            return Float().decode(stored, dtype)
        seen = stored if self.view is None else self.view.split_all(stored)
        assert seen.top is not None
        moment = decode_blocks(seen.codes, seen.scale, seen.top)
        return moment if self.view is None else self.view.merge(moment)

    def encode(self, moment: jax.Array, like: Stored, bits: jax.Array | None, *, square: bool) -> Stored:
        """The moment as it is kept."""
        if not isinstance(like, Quantized):
            plain = isinstance(self.codec, Int8)  # a leaf that stays float32
            return Float().encode(moment, like, None if plain else bits, square=square)
        assert bits is not None
        seen = (moment, bits) if self.view is None else (self.view.split(moment), self.view.split(bits))
        encoded = Quantized(*encode_blocks(*seen, like.codes.dtype, self.found))
        return encoded if self.view is None else self.view.merge_all(encoded)

    def largest(self, stored: Stored) -> float:
        """The largest number that can be kept."""
        return Int8().largest(stored)
