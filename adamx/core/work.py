"""All that one pass over memory needs, as data: what an optimizer hands to the executor of a step."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from adamx.core.leaf import Leaf, Numbers, Rule, Term, step_leaf
from adamx.storage.dither import Walk
from adamx.trees import staged

NOWHERE, EVERYWHERE, CAUTIOUSLY = range(3)
"""How a leaf decays: not at all, in all elements, or in those where that does not oppose the update."""

T = TypeVar("T")


def decays(terms: Sequence[Term]) -> int:
    """How a leaf with these terms decays: NOWHERE, EVERYWHERE or CAUTIOUSLY."""
    found = NOWHERE
    for term in terms:
        if term.decay is not None:
            found = max(found, CAUTIOUSLY if term.cautious else EVERYWHERE)
    return found


def folds(terms: Sequence[Term]) -> bool:
    """Whether one multiple of the direction and one of the weight say all that terms do."""
    return decays(terms) != CAUTIOUSLY or len([term for term in terms if term.decay is not None]) == 1


@functools.partial(jax.tree_util.register_dataclass, data_fields=["terms"], meta_fields=["which"])
@dataclasses.dataclass(frozen=True)
class Tail:
    """What a stage after the optimizer does to the direction, as one factor and one addition.

    Attributes:
        terms: to leaves of each kind: those that decay and those that do not, groups with factors of their own.
        which: the number in `terms` of each leaf, in the order of the parameters.
    """

    terms: tuple[Term, ...]
    which: tuple[int, ...]

    def on(self, i: int) -> Term:
        """What it does to leaf i."""
        return self.terms[self.which[i]]

    def take(self, numbers: Sequence[int]) -> "Tail":
        """What it does to some leaves."""
        return Tail(self.terms, _some(self.which, numbers))


def _some(column: tuple[T, ...], numbers: Sequence[int]) -> tuple[T, ...]:
    return tuple(map(column.__getitem__, numbers))


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["numbers", "leaves", "tails", "offsets"],
    meta_fields=["rule", "salts", "places", "small"],
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
        small: whether a kernel leaves a leaf to XLA if it is float32; None: the kernel decides by the sizes of leaves.
    """

    numbers: Numbers
    leaves: tuple[Leaf, ...]
    tails: tuple[Tail, ...]
    offsets: tuple[tuple[Any, ...], ...] | None
    rule: Rule
    salts: tuple[tuple[int, int], ...]
    places: tuple[int, ...]
    small: tuple[bool, ...] | None = None

    def replace(self, **changes: Any) -> "Work":
        """The same with other fields."""
        return dataclasses.replace(self, **changes)

    def stepped(self) -> tuple[Leaf, ...]:
        """The leaves with what of them there is after the step."""
        return tuple([leaf._replace(gradient=None) for leaf in self.leaves])

    def terms(self, i: int) -> tuple[Term, ...]:
        """What stands behind the direction of leaf i."""
        return tuple([tail.on(i) for tail in self.tails])

    def kinds(self) -> tuple[list[tuple[Term, ...]], list[int]]:
        """The terms of leaves of each kind, and the kind of each leaf."""
        keys = list(zip(*[tail.which for tail in self.tails], strict=True)) if self.tails else [()] * len(self.leaves)
        distinct = list(dict.fromkeys(keys))
        numbers = dict(zip(distinct, range(len(distinct)), strict=True))
        terms = [tuple([t.terms[n] for t, n in zip(self.tails, key, strict=True)]) for key in distinct]
        return terms, list(map(numbers.__getitem__, keys))

    def each(self, say: Callable[[tuple[Term, ...]], T]) -> list[T]:
        """What a function says of the terms of each leaf."""
        terms, which = self.kinds()
        return list(map(list(map(say, terms)).__getitem__, which))

    def take(self, numbers: list[int]) -> "Work":
        """The work on some leaves."""
        return self.replace(
            leaves=_some(self.leaves, numbers),
            tails=tuple([tail.take(numbers) for tail in self.tails]),
            places=_some(self.places, numbers),
            small=None if self.small is None else _some(self.small, numbers),
            offsets=None if self.offsets is None else _some(self.offsets, numbers),
            salts=_some(self.salts, numbers),
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
        of_moments = Walk(np.uint32(work.salts[i][0]), numbers.moments_step, offset)
        of_param = Walk(np.uint32(work.salts[i][1]), numbers.params_step, offset)
        found.append(one(numbers, leaf, work.terms(i), of_moments, of_param))
    return tuple(found)
