"""How the figures look: one style for a name in all of them, means as lines, the range of the seeds as bands."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))

from figures import COLOURS

DASHES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (2, 2)))


def style(index: int) -> dict[str, Any]:
    """Colours that colour-blind readers can tell apart; dashes say it once more, and go on where colours repeat."""
    dashes = DASHES[(index + index // len(COLOURS)) % len(DASHES)]
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": dashes}


def panels(columns: int, rows: int = 1, width: float = 4.4, height: float = 3.6, **shared: Any) -> tuple[Any, Any]:
    """A figure and its axes in a list, row by row."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    size = (width * columns, height * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **shared)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    return figure, list(axes.flat)


def band(axis: Any, curve: Mapping[str, Sequence[float | None]], label: str, **drawn: Any) -> None:
    """The mean as a line, from the lowest seed to the highest as a band; a gap where something has diverged."""
    x, mean, low, high = (np.array(curve[name], float) for name in ("x", "mean", "low", "high"))
    axis.plot(x, mean, label=label, linewidth=1.4, **drawn)
    axis.fill_between(x, low, high, color=drawn["color"], alpha=0.15, linewidth=0)


def bands(axis: Any, curves: Mapping[str, Mapping[str, Sequence[float | None]]]) -> None:
    """One band for each name, styled by its place."""
    for index, (name, curve) in enumerate(curves.items()):
        band(axis, curve, name, **style(index))


def finish(figure: Any, path: Path, legend: Any = None, columns: int = 5) -> None:
    """One legend, that of an axis, below everything; numbers that can be read on logarithmic axes; then the file."""
    if legend is not None:
        figure.legend(
            *legend.get_legend_handles_labels(),
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            fontsize="small",
        )
    from matplotlib import pyplot as plt  # noqa: PLC0415
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator  # noqa: PLC0415

    for axis in figure.axes:
        low, high = axis.get_ylim()
        if axis.get_yscale() == "log" and high < 200 * low:  # too few powers of ten to read a number from
            axis.yaxis.set_major_locator(
                LogLocator(subs=(1, 2, 5) if high > 5 * low else (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9))
            )
            axis.yaxis.set_minor_locator(NullLocator())
            axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    figure.savefig(path, dpi=150)

    plt.close(figure)
