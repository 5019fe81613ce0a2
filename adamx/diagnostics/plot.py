"""A picture of what was measured over a training run."""

from collections.abc import Sequence
from typing import Any

from adamx.diagnostics.measure import MEASURED, Measurement

LABELS = {
    "signal_to_noise": r"mean $|\hat m|/\sqrt{\hat v}$",
    "above_rate": r"share of steps $> \alpha$",
    "above_bound": "share > the paper's bound",
    "spike": r"RMS of $g/\sqrt{\hat v}$",
    "cosine": "cos(m, g)",
    "update_ratio": r"$\|$update$\|\,/\,\|$parameter$\|$",
    "stalled": "share that does not move",
}
LOGARITHMIC = ("update_ratio", "spike", "signal_to_noise")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, which colour-blind readers can tell apart; what comes after them is grey."""


def plot(history: Sequence[dict[str, Measurement]], fields: Sequence[str] = MEASURED) -> Any:
    """Draws measurements against the step, a panel for each field and a line for each leaf.

    Args:
        history: what `diagnose` gave, in the order of time.
        fields: names of fields of `Measurement`.

    Returns:
        A `matplotlib.figure.Figure`: `figure.savefig("training.png")`.

    Raises:
        ValueError: an empty history, or a field of another name.
        ImportError: Matplotlib is not installed: `pip install 'adamx[plot]'`.

    Example:
        >>> import adamx
        >>> from adamx.diagnostics.measure import Measurement
        >>> rows = [{"w": Measurement(t, 0.5, 0.1, 0.0, 1.0, 0.3, 1e-3, 0.0)} for t in (1, 2, 3)]
        >>> len(adamx.diagnostics.plot(rows, ["spike", "stalled"]).axes)
        2
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise ImportError("adamx.diagnostics.plot draws with Matplotlib: pip install 'adamx[plot]'") from error
    if not history:
        raise ValueError("history is empty: append adamx.diagnostics.diagnose(state) to it while you train")
    unknown = [name for name in fields if name not in LABELS]
    if unknown or not fields:
        raise ValueError(f"fields must be some of {', '.join(LABELS)}, got {list(fields)!r}")
    columns = min(len(fields), 2)
    rows = -(-len(fields) // columns)
    figure = Figure(figsize=(4 * columns, 2.4 * rows), layout="constrained")  # as wide as a page of text
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    paths = list(history[0])
    for axis, name in zip(axes, fields, strict=False):
        for i, path in enumerate(paths):
            points = [(row[path].step, getattr(row[path], name)) for row in history if path in row]
            style = {"color": COLOURS[i], "label": path} if i < len(COLOURS) else {"color": "0.8", "zorder": 0}
            axis.plot(*zip(*points, strict=True), linewidth=1.2, marker="." if len(points) < 20 else "", **style)
        axis.set_ylabel(LABELS[name])
        axis.grid(alpha=0.3)
        if name in LOGARITHMIC and any(getattr(m, name) > 0 for row in history for m in row.values()):
            axis.set_yscale("log")
    for axis in axes[len(fields) :]:
        axis.set_visible(False)
    for axis in axes[max(len(fields) - columns, 0) : len(fields)]:
        axis.set_xlabel("step")
        axis.tick_params(labelbottom=True)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(paths), 2 * columns))
    return figure
