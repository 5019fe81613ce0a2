"""How far two arrays are apart, and the table that says so for two runs."""

import dataclasses

import numpy as np


def ulps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The number of floating numbers between a and b, element by element, as float64.

    Two NaNs are 0 apart, a NaN and a number infinitely; +0 and -0 are 0 apart. Integers give their difference,
    complex numbers the larger of their parts.

    Args:
        a: an array of any floating, complex or integer dtype.
        b: an array of the same shape and dtype.
    """
    if np.iscomplexobj(a):
        return np.maximum(ulps(np.real(a), np.real(b)), ulps(np.imag(a), np.imag(b)))
    if a.dtype.kind in "iub":
        return np.abs(a.astype(np.float64) - b.astype(np.float64))
    bits = np.dtype(f"i{a.dtype.itemsize}")

    def ordered(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raw = x.view(bits).astype(np.int64)
        magnitude = raw & np.int64(np.iinfo(bits).max)
        return np.where(raw < 0, -1, 1), magnitude

    (sign_a, size_a), (sign_b, size_b) = ordered(np.ascontiguousarray(a)), ordered(np.ascontiguousarray(b))
    same_side = np.abs(size_a - size_b).astype(np.float64)
    across = size_a.astype(np.float64) + size_b.astype(np.float64)
    distance = np.where(sign_a == sign_b, same_side, across)
    nan_a, nan_b = np.isnan(a), np.isnan(b)
    return np.where(nan_a & nan_b, 0.0, np.where(nan_a | nan_b, np.inf, distance))


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays agree in shape, dtype and every bit, except that all NaNs count as one."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    rows = [np.ascontiguousarray(x).reshape(-1).view(np.uint8).reshape(-1, x.dtype.itemsize) for x in (a, b)]
    equal = (rows[0] == rows[1]).all(axis=-1).reshape(a.shape)
    return bool((equal | (np.isnan(a) & np.isnan(b))).all())


@dataclasses.dataclass
class LeafDifference:
    """The differences of one leaf in two runs; each list has one entry per step.

    Attributes:
        part: "update", "params" or "state".
        path: the leaf's path, as `jax.tree_util.keystr` prints it.
        kind: dtype and shape in both runs, "float32[3]" or "float32[3] / bfloat16[3]".
        absolute: the largest |a - b|.
        relative: the largest |a - b| / |b|.
        ulps: the largest number of floating numbers between them; infinite where the dtypes differ.
        identical: whether every bit agrees.
    """

    part: str
    path: str
    kind: str = ""
    absolute: list[float] = dataclasses.field(default_factory=list[float])
    relative: list[float] = dataclasses.field(default_factory=list[float])
    ulps: list[float] = dataclasses.field(default_factory=list[float])
    identical: list[bool] = dataclasses.field(default_factory=list[bool])

    @property
    def first(self) -> int | None:
        """The first step, from 1, in which a bit differs; None if none does."""
        return None if all(self.identical) else self.identical.index(False) + 1

    def add(self, a: np.ndarray, b: np.ndarray) -> None:
        """Appends the distance after one more step."""
        kinds = [f"{x.dtype}{list(x.shape)}".replace(" ", "") for x in (a, b)]
        self.kind = kinds[0] if kinds[0] == kinds[1] else " / ".join(kinds)
        self.identical.append(same_bits(a, b))
        if a.shape != b.shape:
            gap, rate, steps = np.inf, np.inf, np.inf
        else:
            gap, rate = _largest_differences(a, b)
            steps = float(ulps(a, b).max(initial=0.0)) if a.dtype == b.dtype else np.inf
        self.absolute.append(gap)
        self.relative.append(rate)
        self.ulps.append(steps)


def _largest_differences(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    wide = np.complex128 if np.iscomplexobj(a) or np.iscomplexobj(b) else np.float64
    a, b = a.astype(wide), b.astype(wide)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        gap = np.where(same, 0.0, np.abs(a - b))
        rate = np.where(same, 0.0, gap / np.abs(b))
    nan_is_far = {"nan": np.inf, "posinf": np.inf}
    return (float(np.nan_to_num(x, **nan_is_far).max(initial=0.0)) for x in (gap, rate))  # pyright: ignore


@dataclasses.dataclass
class Report:
    """The result of `compare`; prints as a table with a row for each leaf.

    Attributes:
        names: what the two transformations are called in the table.
        leaves: the differences leaf by leaf.
        only_in: paths of state leaves that one of them lacks, by name.
    """

    names: tuple[str, str]
    leaves: list[LeafDifference]
    only_in: dict[str, list[str]]

    @property
    def equal(self) -> bool:
        """Whether every bit agrees in every step, and the states have the same leaves."""
        return all(leaf.first is None for leaf in self.leaves) and not any(self.only_in.values())

    @property
    def max_ulps(self) -> float:
        """The largest distance anywhere, in units in the last place."""
        return max((max(leaf.ulps, default=0.0) for leaf in self.leaves), default=0.0)

    @property
    def max_relative(self) -> float:
        """The largest relative distance anywhere."""
        return max((max(leaf.relative, default=0.0) for leaf in self.leaves), default=0.0)

    @property
    def first_divergence(self) -> tuple[int, str, str] | None:
        """Step (from 1), part and path of the first leaf that differs in a bit, updates before state before params."""
        found = [(leaf.first, i) for i, leaf in enumerate(self.leaves) if leaf.first is not None]
        if not found:
            return None
        step, i = min(found)
        return step, self.leaves[i].part, self.leaves[i].path

    def __str__(self) -> str:
        """The table: one row a leaf, the worst over all steps."""
        head = ("part", "leaf", "type", "absolute", "relative", "ulps", "first at")
        rows = [head, *(_row(leaf) for leaf in self.leaves)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        where = self.first_divergence
        steps = max((len(leaf.identical) for leaf in self.leaves), default=0)
        verdict = "every bit agrees" if self.equal else "they differ"
        if where:
            verdict = f"first difference at step {where[0]}: {where[1]} {where[2]}"
        missing = [f"only in {name}: {', '.join(paths)}" for name, paths in self.only_in.items() if paths]
        return "\n".join([f"{self.names[0]} against {self.names[1]}, {steps} steps: {verdict}", *lines, *missing])


def _row(leaf: LeafDifference) -> tuple[str, ...]:
    worst = (f"{max(x, default=0.0):.3g}" for x in (leaf.absolute, leaf.relative, leaf.ulps))
    return (leaf.part, leaf.path, leaf.kind, *worst, "never" if leaf.first is None else f"step {leaf.first}")
