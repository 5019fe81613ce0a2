"""How the figures look: one style for a name in all of them, means as lines, the range of the seeds as bands."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))

from figures import COLOURS, save

DASHES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (2, 2)))


def style(index: int) -> dict[str, Any]:
    """Colours that colour-blind readers can tell apart; dashes say it once more, and go on where colours repeat."""
    dashes = DASHES[(index + index // len(COLOURS)) % len(DASHES)]
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": dashes}


def band(axis: Any, curve: Mapping[str, Sequence[float | None]], label: str, **drawn: Any) -> None:
    """The mean as a line, from the lowest seed to the highest as a band; a gap where something has diverged."""
    x, mean, low, high = (np.array(curve[name], float) for name in ("x", "mean", "low", "high"))
    axis.plot(x, mean, label=label, linewidth=1.4, **drawn)
    axis.fill_between(x, low, high, color=drawn["color"], alpha=0.15, linewidth=0)


def bands(axis: Any, curves: Mapping[str, Mapping[str, Sequence[float | None]]]) -> None:
    """One band for each name, styled by its place."""
    for index, (name, curve) in enumerate(curves.items()):
        band(axis, curve, name, **style(index))


def finish(figure: Any, path: Path, legend: Any = None) -> None:
    """One legend, that of an axis, below everything; numbers that can be read on logarithmic axes; then the file."""
    if legend is not None:
        below(figure, *legend.get_legend_handles_labels())
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator  # noqa: PLC0415

    for axis in figure.axes:
        low, high = axis.get_ylim()
        if axis.get_yscale() == "log" and high < 200 * low:  # too few powers of ten to read a number from
            axis.yaxis.set_major_locator(
                LogLocator(subs=(1, 2, 5) if high > 5 * low else (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9))
            )
            axis.yaxis.set_minor_locator(NullLocator())
            axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    save(figure, path)


def below(figure: Any, handles: Sequence[Any], names: Sequence[str]) -> None:
    """A legend below everything, in as many columns as the width has room for."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415

    renderer = FigureCanvasAgg(figure).get_renderer()
    for columns in range(len(names), 0, -1):
        drawn = figure.legend(handles, names, loc="outside lower center", ncols=columns)
        if columns == 1 or drawn.get_window_extent(renderer).width < figure.bbox.width:
            return
        drawn.remove()
