"""All that one pass over memory needs, as data: what an optimizer hands to the executor of a step."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from adamx.core.leaf import Leaf, Numbers, Rule, Term, step_leaf
from adamx.numerics import Scalar
from adamx.storage.dither import Walk
from adamx.trees import staged

NOWHERE, EVERYWHERE, CAUTIOUSLY = range(3)
"""How a leaf decays: not at all, in all elements, or in those where that does not oppose the update."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["decay", "scales"],
    meta_fields=["decays", "which", "cautious"],
)
@dataclasses.dataclass(frozen=True)
class Tail:
    """What a stage behind the direction does to it, leaf by leaf in the order of the parameters.

    Attributes:
        decay: λ of weight decay.
        decays: whether it is added, for each leaf; empty: nowhere.
        scales: factors: minus the learning rate, or those of groups.
        which: the number in `scales` of the factor of each leaf, or None; empty: no leaf has one.
        cautious: whether elements where the decay and the update differ in sign do not decay.
    """

    decay: Scalar = 0.0
    decays: tuple[bool, ...] = ()
    scales: tuple[Scalar, ...] = ()
    which: tuple[int | None, ...] = ()
    cautious: bool = False

    def on(self, i: int) -> Term:
        """What it does to leaf i."""
        number = self.which[i] if self.which else None
        decays = bool(self.decays) and self.decays[i]
        scale = None if number is None else self.scales[number]
        return Term(self.decay, scale, self.cautious) if decays else Term(scale=scale)

    def take(self, numbers: Sequence[int]) -> "Tail":
        """What it does to some leaves."""
        decays, which = ([column[i] for i in numbers] if column else () for column in (self.decays, self.which))
        return dataclasses.replace(self, decays=tuple(decays), which=tuple(which))


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["numbers", "leaves", "tails", "offsets"],
    meta_fields=["rule", "salts", "places", "least"],
)
@dataclasses.dataclass(frozen=True)
class Work:
    """One step on all leaves.

    Attributes:
        numbers: of the step.
        leaves: before the step, or after it.
        tails: what stands behind the direction.
        offsets: where the shard at hand begins in each leaf, one index an axis; None: the leaves are whole.
        rule: what is known when the step is compiled.
        salts: of the dither, of each leaf's moments and of its parameter.
        places: the number of each leaf among all parameters of the step: a group has some of them.
        least: the elements below which a kernel leaves a float32 leaf to XLA; None: the kernel decides by the leaves.
    """

    numbers: Numbers
    leaves: tuple[Leaf, ...]
    tails: tuple[Tail, ...]
    offsets: tuple[tuple[Any, ...], ...] | None
    rule: Rule
    salts: tuple[tuple[int, int], ...]
    places: tuple[int, ...]
    least: int | None = None

    def replace(self, **changes: Any) -> "Work":
        """The same with other fields."""
        return dataclasses.replace(self, **changes)

    def terms(self, i: int) -> tuple[Term, ...]:
        """What stands behind the direction of leaf i."""
        return tuple(tail.on(i) for tail in self.tails)

    def decays(self, i: int) -> int:
        """How leaf i decays: NOWHERE, EVERYWHERE or CAUTIOUSLY."""
        decaying = [term for term in self.terms(i) if term.decay is not None]
        return NOWHERE if not decaying else CAUTIOUSLY if any(term.cautious for term in decaying) else EVERYWHERE

    def folds(self, i: int) -> bool:
        """Whether one multiple of the direction of leaf i and one of its weight say all that stands behind it."""
        return self.decays(i) != CAUTIOUSLY or sum(term.decay is not None for term in self.terms(i)) == 1

    def take(self, numbers: list[int]) -> "Work":
        """The work on some leaves."""
        return self.replace(
            leaves=tuple(self.leaves[i] for i in numbers),
            tails=tuple(tail.take(numbers) for tail in self.tails),
            places=tuple(self.places[i] for i in numbers),
            offsets=None if self.offsets is None else tuple(self.offsets[i] for i in numbers),
            salts=tuple(self.salts[i] for i in numbers),
        )


def by_xla(work: Work) -> tuple[Leaf, ...]:
    """The leaves after the step, in XLA's own code.

    While a program is recorded the step is traced once for each distinct kind of leaf.
    """
    one = functools.partial(step_leaf, work.rule)
    one = jax.jit(one) if staged() else one
    numbers, found = work.numbers, []
    for i, leaf in enumerate(work.leaves):
        offset = None if work.offsets is None else work.offsets[i]
        clocks = numbers.moments_step, numbers.params_step
        of_moments, of_param = (
            Walk(np.uint32(salt), clock, offset) for salt, clock in zip(work.salts[i], clocks, strict=True)
        )
        found.append(one(numbers, leaf, work.terms(i), of_moments, of_param))
    return tuple(found)
