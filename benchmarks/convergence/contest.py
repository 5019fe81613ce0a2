"""Methods against each other on one problem: everyone tuned alike, then a table, and curves for the figure."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from claims import spread
from report import Table, curve
from training import Build, Problem
from tuning import Budget, Tuned, tuned


class Contest(NamedTuple):
    """The methods at their best learning rates.

    Attributes:
        budget: what each could spend.
        found: by name.
    """

    budget: Budget
    found: dict[str, Tuned]

    def end(self, name: str) -> np.ndarray:
        """Where a method ends, one number for each seed."""
        return self.found[name].end

    def table(self, caption: str, cost: str, median: bool = False) -> Table:
        """Rate, and the cost on the way and at the end; with the median over the seeds where a few decide the mean."""
        points = self.budget.points
        tenth, third = (max(0, len(points) // part - 1) for part in (10, 3))
        header = [
            "",
            "best learning rate",
            "learning rates tried",
            *(f"{cost}, step {points[i]}" for i in (tenth, third)),
            "at the end",
        ]
        header += ["median at the end"] if median else []
        rows = [
            [
                name,
                f"{run.rate:.2g}{'' if run.inside else ' (edge)'}",
                str(run.tried),
                *(spread(run.curves[:, i]) for i in (tenth, third)),
                spread(run.end),
                *([f"{np.median(run.end):.3g}"] if median else []),
            ]
            for name, run in self.found.items()
        ]
        return Table(caption, header, rows)

    def curves(self) -> dict[str, Any]:
        """What the figure needs."""
        return {name: curve(self.budget.points, run.curves) for name, run in self.found.items()}

    def setting(self) -> str:
        """Seeds and steps in words."""
        seeds, trials = self.budget.seeds, self.budget.trials
        return (
            f"{self.budget.steps} steps, seeds {seeds[0]} to {seeds[-1]}; learning rates chosen on "
            f"seed{'' if trials == 1 else 's'} 100{'' if trials == 1 else f' to {99 + trials}'}."
        )

    def ends(self, *names: str) -> str:
        """Where methods end, in words."""
        return ", ".join(f"{name} {spread(self.end(name))}" for name in names)


def contest(problem: Problem, methods: Mapping[str, Build], budget: Budget) -> Contest:
    """Tunes and trains each method."""
    return Contest(budget, {name: tuned(problem, build, budget) for name, build in methods.items()})
