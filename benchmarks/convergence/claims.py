"""Claims, and the two criteria that most of them are judged by. A criterion stands in its program before the run."""

from typing import NamedTuple

import numpy as np


class Claim(NamedTuple):
    """What was said, and whether it held here.

    Attributes:
        text: the claim in words, and who made it.
        criterion: what decides, in words.
        held: what was decided.
        numbers: that decided it.
    """

    text: str
    criterion: str
    held: bool
    numbers: str

    def __str__(self) -> str:
        return f"claim: {self.text}\n       {'held' if self.held else 'did not hold'}: {self.numbers}"


AHEAD = "the mean over the seeds is lower, by more than two standard errors of the differences seed by seed"
LEVEL = "the mean over the seeds is lower, or at most 10 % higher"


def ahead(a: np.ndarray, b: np.ndarray) -> bool:
    """`AHEAD` of costs of the same seeds; where b has failed and a has not, a is ahead."""
    if not np.isfinite(b).all():
        return bool(np.isfinite(a).all())
    difference = a - b
    return bool(difference.mean() < -2 * difference.std(ddof=1) / np.sqrt(len(difference)))


def level(a: np.ndarray, b: np.ndarray) -> bool:
    """`LEVEL` of costs that are positive."""
    return bool(a.mean() <= 1.1 * b.mean())


def spread(values: np.ndarray) -> str:
    """Mean ± standard deviation over the seeds."""
    return f"{values.mean():.3g} ± {values.std(ddof=1):.1g}" if np.isfinite(values).all() else "diverged"
