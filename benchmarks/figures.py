"""How figures look: as wide as a page, letters that can be read there, one style for a name in all of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import Spread

# Okabe and Ito's colours, which colour-blind readers can tell apart; the markers do it once more.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
OURS, THEIRS = COLOURS[0], "0.6"
"""Bars of adamx, and those of others."""

WIDTH, POINTS, DPI = 8.0, 11, 200
"""Inches of a figure, points of its letters, pixels per inch. A page shows it 800 pixels wide, letters 15 high."""


def page(height: float) -> Any:
    """An empty figure as wide as a page, so many inches high."""
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    mpl.rcParams.update({"font.size": POINTS, "axes.titlesize": POINTS, "axes.spines.top": False})
    mpl.rcParams.update({"axes.spines.right": False, "axes.axisbelow": True, "legend.frameon": False})
    mpl.rcParams.update({"axes.grid": True, "grid.alpha": 0.3})
    return Figure(figsize=(WIDTH, height), layout="constrained")


def panels(columns: int = 1, rows: int = 1, height: float = 3.2, **shared: Any) -> tuple[Any, list[Any]]:
    """A figure and its axes in a list, row by row; a row is so many inches high."""
    figure = page(height * rows)
    return figure, list(figure.subplots(rows, columns, squeeze=False, **shared).flat)


def save(figure: Any, path: Path) -> None:
    """Into a file, in the format that its ending names."""
    figure.savefig(path, dpi=DPI)


def bars(axis: Any, values: Mapping[str, Any], colours: Sequence[str], written: str = "{:.2f}") -> None:
    """Horizontal bars from the top with their numbers; a `Spread` has a line from quartile to quartile, None no bar."""
    found = [value if value is None or isinstance(value, Spread) else Spread(*[value] * 3) for value in values.values()]
    for row, (value, colour) in enumerate(zip(found, colours, strict=True)):
        end = value.high if value else 0.0
        if value:
            axis.barh(row, value.median, color=colour)
            axis.hlines(row, value.low, value.high, color="0.2", linewidth=1)
        text = written.format(value.median) if value else "not measured"
        place = {"textcoords": "offset points", "va": "center_baseline", "color": "black" if value else "0.4"}
        axis.annotate(text, (end, row), (4, 0), **place, bbox={"color": "white", "pad": 0.5})
    axis.set_yticks(range(len(values)), values)
    axis.set_ylim(len(values) - 0.5, -0.5)
    axis.set_xlim(0, 1.25 * max(value.high for value in found if value))
    axis.grid(visible=False)
    axis.tick_params(axis="both", length=0)
    axis.tick_params(axis="x", labelbottom=False)


def seeds(axis: Any, values: Mapping[str, Any], colours: Sequence[str]) -> None:
    """A row for each name from the top: a dot for each seed, a bar at their mean."""
    for row, (numbers, colour) in enumerate(zip(values.values(), colours, strict=True)):
        axis.plot(numbers, np.full(len(numbers), row), "o", color=colour, alpha=0.45, markersize=5)
        axis.plot(np.mean(numbers), row, "|", color=colour, markersize=15, markeredgewidth=2.5)
    axis.set_yticks(range(len(values)), values)
    axis.set_ylim(len(values) - 0.4, -0.6)
