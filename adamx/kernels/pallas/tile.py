"""The whole step on one tile: `step_leaf` with codecs that see a block in each row.

Triton divides to 2 units in the last place. On a GPU a code may therefore differ from that of XLA where its fraction
lies within a rounding error of its threshold, about one in 10^5; it is as right on average.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
from jax.typing import DTypeLike

from adamx.core.leaf import Leaf, Numbers, Rule, Term, step_leaf
from adamx.core.work import CAUTIOUSLY
from adamx.storage import Float, Int8
from adamx.storage.codec import Codec, Quantized, Stored
from adamx.storage.dither import thresholds_at
from adamx.storage.int8 import decode_blocks, encode_blocks


class Places(NamedTuple):
    """The dither of a tile; stands for `adamx.storage.dither.Walk`.

    Attributes:
        places: of its elements, uint32.
        step: the clock, uint32.
    """

    places: jax.Array
    step: jax.Array

    def thresholds(self, _: Any) -> jax.Array:
        """Those of the tile."""
        return thresholds_at(self.places, self.step)


class OnTile(NamedTuple):
    """A codec on a tile: what is quantized has one block in each row, and its numbers in a column.

    Attributes:
        codec: of the leaf, `Float` or `Int8`.
    """

    codec: Codec

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
        assert stored.top is not None
        return decode_blocks(stored.codes, stored.scale, stored.top)

    def encode(self, moment: jax.Array, like: Stored, bits: jax.Array | None, *, square: bool) -> Stored:
        """The moment as it is kept."""
        if not isinstance(like, Quantized):
            plain = isinstance(self.codec, Int8)  # a leaf that stays float32
            return Float().encode(moment, like, None if plain else bits, square=square)
        assert bits is not None
        return Quantized(*encode_blocks(moment, bits, like.codes.dtype))

    def largest(self, stored: Stored) -> float:
        """The largest number that can be kept."""
        return Int8().largest(stored)


def step_tile(rule: Rule, decays: int, scalars: Any, places: jax.Array, tile: Leaf) -> Leaf:
    """A tile after the step.

    Args:
        rule: of the step.
        decays: how the leaf decays, `adamx.core.work.decays`.
        scalars: `Scalars` with the salts and terms of the leaf alone, each a sequence of scalars.
        places: of the elements, relative to the leaf's first one.
        tile: matrices, those of a moment's scale and top one column wide.
    """
    (b1, _, b2, _, *weights, eps, eps_root, factor), counts, salts, (scale, decay) = scalars
    numbers = Numbers._make([factor, b1, b2, *weights, eps, eps_root, *counts])
    averages = rule.averages
    codecs = {"mu_codec": OnTile(averages.mu_codec), "nu_codec": OnTile(averages.nu_codec)}
    on_tile = dataclasses.replace(rule, averages=averages.replace(**codecs))
    terms = (Term(scale=scale), Term(decay=decay, cautious=decays == CAUTIOUSLY)) if decays else (Term(scale=scale),)
    of_moments, of_param = (Places(salt + places, count) for salt, count in zip(salts, counts, strict=False))
    return step_leaf(on_tile, numbers, tile, terms, of_moments, of_param)
