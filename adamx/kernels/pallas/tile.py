"""The whole step on one tile: `step_leaf` with codecs that see a block in each row.

Triton divides to 2 units in the last place. On a GPU a code may therefore differ from that of XLA where its fraction
lies within a rounding error of its threshold, about one in 10^5; it is as right on average.
"""

import dataclasses
from typing import Any, NamedTuple

import jax

from adamx.core.leaf import Leaf, Numbers, Rule, Term, step_leaf
from adamx.core.work import CAUTIOUSLY
from adamx.storage.dither import thresholds_at
from adamx.storage.on_blocks import OnBlocks


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
    codecs = {"mu_codec": OnBlocks(averages.mu_codec), "nu_codec": OnBlocks(averages.nu_codec)}
    on_tile = dataclasses.replace(rule, averages=averages.replace(**codecs))
    terms = (Term(scale=scale), Term(decay=decay, cautious=decays == CAUTIOUSLY)) if decays else (Term(scale=scale),)
    of_moments, of_param = (Places(salt + places, count) for salt, count in zip(salts, counts, strict=False))
    return step_leaf(on_tile, numbers, tile, terms, of_moments, of_param)
