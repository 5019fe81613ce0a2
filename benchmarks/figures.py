"""Figures of the benchmarks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Okabe and Ito's colours, which colour-blind readers can tell apart; the markers do it once more.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"


def over_optax(rows: Sequence[Mapping[str, Any]], baseline: str, floor: str, path: Path) -> None:
    """Time of a step over optax's by the number of parameters; bars reach from quartile to quartile.

    Args:
        rows: of `step_time.py`, all of one leaf, by growing size.
        baseline: the contender whose time is 1.
        floor: a second baseline; the band that its quartiles fill is the noise.
        path: of the file, in a format that its ending names.
    """
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    sizes = [row["elements"] for row in rows]
    noise = [row["ratio"][floor] for row in rows]
    axes.fill_between(sizes, [s.low for s in noise], [s.high for s in noise], color="0.85", label=floor)
    axes.axhline(1.0, color="0.4", linewidth=0.8)
    names = [name for name in rows[0]["ratio"] if name not in (baseline, floor)]
    for name, colour, marker in zip(names, COLOURS, MARKERS, strict=False):
        ratio = [row["ratio"][name] for row in rows]
        reach = [[s.median - s.low for s in ratio], [s.high - s.median for s in ratio]]
        medians = [s.median for s in ratio]
        axes.errorbar(sizes, medians, reach, label=name, color=colour, marker=marker, markersize=5, capsize=2)
    axes.set(xscale="log", xlabel="parameters in one leaf (number)", yscale="log")
    axes.set_ylabel("time of a step / time of optax's step (s / s)")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    figure.savefig(path, dpi=200)
