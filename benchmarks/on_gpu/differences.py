"""How far two runs of a step are apart, by kind of number."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any


@dataclasses.dataclass
class Difference:
    """Of all numbers of one kind.

    Attributes:
        unequal: how many differ.
        of: how many there are.
        largest: how far they are apart: codes and counts by their difference, floats in units in the last place of the
            largest of both and the number before the step.
    """

    unequal: int = 0
    of: int = 0
    largest: float = 0.0

    def __str__(self) -> str:
        return f"{self.unequal}/{self.of} by {self.largest:g}" if self.unequal else f"equal/{self.of}"

    def __add__(self, other: "Difference") -> "Difference":
        return Difference(self.unequal + other.unequal, self.of + other.of, max(self.largest, other.largest))


def kind_of(path: str, x: np.ndarray) -> str:
    """What a leaf of (parameters, state) holds."""
    if path.startswith("[0]"):
        return "params"
    if x.dtype.itemsize == 1 and x.dtype != bool:
        return "codes"
    if x.dtype == np.uint16:
        return "remainders"
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return "counts"
    return "scales" if path.endswith(".scales") else "moments"


def ulps(a: np.ndarray, b: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The distance in units in the last place; 0 between NaNs."""
    info = jnp.finfo(a.dtype)
    a, b, before = (x.astype(np.float64) for x in (a, b, before))
    size = np.fmax(np.fmax(np.abs(a), np.abs(b)), np.abs(before))
    size = np.clip(size, float(info.smallest_normal), float(info.max))
    with np.errstate(invalid="ignore"):
        apart = np.abs(a - b) / (2.0 ** np.floor(np.log2(size)) * float(info.eps))
    return np.where(np.isnan(a) & np.isnan(b) | (a == b), 0.0, np.where(np.isnan(apart), np.inf, apart))


def between(got: np.ndarray, expected: np.ndarray, before: np.ndarray) -> Difference:
    """Of two arrays; a NaN is any other NaN, and 0 is -0 only where bits are equal."""
    if (got.shape, got.dtype) != (expected.shape, expected.dtype):
        raise ValueError(f"{got.dtype}{got.shape} beside {expected.dtype}{expected.shape}")
    if got.tobytes() == expected.tobytes():
        return Difference(of=got.size)
    if jnp.issubdtype(got.dtype, jnp.inexact):
        bits = [np.ascontiguousarray(x).view(f"u{x.dtype.itemsize}") for x in (got, expected)]
        both_nan = np.isnan(got.astype(np.float64)) & np.isnan(expected.astype(np.float64))
        unequal, apart = (bits[0] != bits[1]) & ~both_nan, ulps(got, expected, before)
    else:
        unequal, apart = got != expected, np.abs(got.astype(np.float64) - expected.astype(np.float64))
    return Difference(int(unequal.sum()), got.size, float(apart.max(initial=0.0)))


def of_steps(got: Tree, expected: Tree, before: Tree) -> dict[str, Difference]:
    """By kind, of (parameters, state) after a step on two sides, and what they were before it."""
    found: dict[str, Difference] = {}
    if jax.tree.structure(got) != jax.tree.structure(expected):
        raise ValueError(f"states of two structures: {jax.tree.structure(got)} and {jax.tree.structure(expected)}")
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(got)]
    leaves = [[np.asarray(x) for x in jax.tree.leaves(side)] for side in (got, expected, before)]
    for path, *arrays in zip(paths, *leaves, strict=True):
        kind = kind_of(path, arrays[0])
        found[kind] = found.get(kind, Difference()) + between(*arrays)
    return found
