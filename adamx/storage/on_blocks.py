"""`Int8` on arrays that are seen in blocks already: tiles of the kernels, and leaves that XLA steps in blocks."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from adamx.storage import blocks
from adamx.storage.codec import Codec, Quantized, Stored, precision
from adamx.storage.coded import Coded
from adamx.storage.floats import Float
from adamx.storage.int8 import decode_blocks, encode_blocks


class InBlocks(NamedTuple):
    """A quantized moment in blocks along the last axis; stands for `Quantized`.

    Attributes:
        codes: of the elements.
        scale: of each block, with 1 in the place of the last axis.
        top: the largest element of each block, of the same shape.
    """

    codes: jax.Array
    scale: jax.Array
    top: jax.Array


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

    def split(self, x: jax.Array) -> jax.Array:
        """An array with a number an element in blocks."""
        return self._aside(blocks.split(x, self.size))

    def merge(self, x: jax.Array) -> jax.Array:
        """The inverse."""
        return blocks.merge(self._back(x), self.shape)

    def split_all(self, stored: Quantized) -> InBlocks:
        """A moment in blocks."""
        return InBlocks(self.split(stored.codes), *map(self._aside, blocks.columns(stored.scales)))

    def merge_all(self, seen: InBlocks) -> Quantized:
        """The inverse."""
        return Quantized(self.merge(seen.codes), blocks.together(self._back(seen.scale), self._back(seen.top)))

    def _aside(self, x: jax.Array) -> jax.Array:
        """The rows of a tile behind the blocks: (..., rows, blocks, n) as (..., 1, blocks, rows, n)."""
        if self.rows == 1:
            return x
        return jnp.swapaxes(x.reshape(*x.shape[:-3], x.shape[-3] // self.rows, self.rows, *x.shape[-2:]), -3, -2)

    def _back(self, x: jax.Array) -> jax.Array:
        if self.rows == 1:
            return x
        x = jnp.swapaxes(x, -3, -2)
        return x.reshape(*x.shape[:-4], x.shape[-4] * self.rows, *x.shape[-2:])


class OnBlocks(NamedTuple):
    """A codec on an array in blocks: of what is quantized the last axis is one block.

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

    def decode(self, stored: Any, dtype: DTypeLike) -> jax.Array:
        """The moment in compute precision."""
        if isinstance(stored, Quantized):
            assert self.view is not None
            return self.view.merge(decode_blocks(*self.view.split_all(stored)))
        return decode_blocks(*stored) if isinstance(stored, InBlocks) else Float().decode(stored, dtype)

    def encode(self, moment: jax.Array, like: Any, bits: jax.Array | None, *, square: bool) -> Any:
        """The moment as it is kept."""
        if not isinstance(like, Quantized | InBlocks):
            plain = isinstance(self.codec, Coded)  # a leaf that stays float32
            return Float().encode(moment, like, None if plain else bits, square=square)
        assert bits is not None
        if self.view is None:
            return InBlocks(*encode_blocks(moment, bits, like.codes.dtype, self.found))
        seen = self.view.split(moment), self.view.split(bits)
        return self.view.merge_all(InBlocks(*encode_blocks(*seen, like.codes.dtype, self.found)))

    def largest(self, stored: Any) -> float:
        """The largest number that can be kept."""
        return float(jnp.finfo(precision(stored)).max)
