"""A learning rate for everyone, found in one way: the same grid, the same seeds, and a grid that is wide enough.

A method starts from ten learning rates, powers of √10 between 1e-4 and 3.2. Where its best one lies at an edge, five
more are tried beyond that edge, until it does not; then four more between the best one and its neighbours, a factor of
1.47 apart. Best is the lowest mean cost at the end. The seeds of the search (from 100) are not those of the report
(from 0).
"""

from typing import NamedTuple

import numpy as np
from training import Build, Problem, costs, end, trainer

GROUP = 5
"""Rates that are tried at a time: with a fifth of the report's seeds for each, one compiled program does for both."""
WIDE, FINE = np.arange(GROUP) / 2, np.arange(-2, 3) / 6
"""The exponents of ten in a group of the wide search, from its first one on, and of the fine one, around the best."""
FIRST, SPAN, WIDENINGS = -4.0, GROUP / 2, 6


class Budget(NamedTuple):
    """What every method may spend.

    Attributes:
        steps: of one run.
        every: steps between two evaluations of the training cost.
        trials: seeds for each learning rate of the search; the report has five times as many.
    """

    steps: int
    every: int
    trials: int = 1

    @property
    def seeds(self) -> np.ndarray:
        return np.arange(GROUP * self.trials)

    @property
    def points(self) -> np.ndarray:
        """The steps after which the cost is evaluated."""
        return self.every * np.arange(1, 1 + self.steps // self.every)


class Tuned(NamedTuple):
    """A method at its best learning rate.

    Attributes:
        rate: the best one.
        tried: how many learning rates were.
        inside: whether the best one is inside the grid at last.
        curves: training costs of the report, `(seeds, points)`.
    """

    rate: float
    tried: int
    inside: bool
    curves: np.ndarray

    @property
    def end(self) -> np.ndarray:
        return end(self.curves)


def tuned(problem: Problem, build: Build, budget: Budget) -> Tuned:
    """Searches the learning rate, then trains anew with it, from other seeds."""
    lanes = trainer(problem, build, budget.steps, budget.every)
    trials = 100 + np.arange(budget.trials)
    found: dict[float, float] = {}

    def try_group(*powers: float) -> float:
        rates = 10.0 ** np.array(powers)
        found.update(zip(powers, end(costs(lanes, rates[:, None], trials)).mean(axis=1), strict=True))
        return min(found, key=found.__getitem__)

    try_group(*WIDE + FIRST)
    best = try_group(*WIDE + FIRST + SPAN)
    for _ in range(WIDENINGS):
        if best == min(found):
            best = try_group(*WIDE + best - SPAN)
        elif best == max(found):
            best = try_group(*WIDE + best + WIDE[1])
    inside = min(found) < best < max(found)
    best = try_group(*best + FINE)
    return Tuned(10.0**best, len(found), inside, costs(lanes, 10.0**best, budget.seeds))
