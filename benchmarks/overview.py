"""The figure of the README: the time of a whole optimizer step and the bytes of state, adamx beside others.

    python benchmarks/overview.py [--figure PATH]

Draws what is in docs/results: `training_step.json` and `memory.json`. Bytes of other libraries are from their formats:
two float32 numbers per parameter in optax and torch; in bitsandbytes two bytes, and two float32 scales for each 256
parameters.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

RESULTS = Path(__file__).parents[1] / "docs" / "results"
OURS, THEIRS = "#0072B2", "0.6"
LARGE = "1.6e+07 in 1 leaf", "GPT-2 small"
BYTES = [("optax, torch", 8.0), ("bitsandbytes 8-bit", 2 + 2 * 4 / 256)]
STORAGES = {"float32 moments": "adamx", "bfloat16 moments": "adamx, bfloat16 moments"}


def times() -> list[tuple[str, float]]:
    """The median time of each step over optax's."""
    rows = {row["case"]: row for row in json.loads((RESULTS / "training_step.json").read_text())["rows"]}
    bars = []
    for case, words in zip(LARGE, ("16 million parameters", "GPT-2 small"), strict=True):
        bars.append((f"optax, {words}", 1.0))
        bars += [(f"{name}, {words}", rows[case]["ratio"][key]["median"]) for key, name in STORAGES.items()]
    return bars


def bytes_of_state() -> list[tuple[str, float]]:
    """Bytes of state per parameter."""
    found = json.loads((RESULTS / "memory.json").read_text())["bytes"]
    moments = [f"{storage} moments" for storage in ("float32", "bfloat16", "int8", "int4")]
    return [BYTES[0], *[(f"adamx, {name}", found[f"float32, {name}"]["state"]) for name in moments], BYTES[1]]


def draw(axes: Any, bars: list[tuple[str, float]], title: str, digits: int) -> None:
    """Horizontal bars with their numbers, from the top."""
    names, values = zip(*bars, strict=True)
    colours = [OURS if name.startswith("adamx") else THEIRS for name in names]
    drawn = axes.barh(range(len(bars)), values, color=colours)
    axes.bar_label(drawn, [f"{round(value, digits):g}" for value in values], padding=4)
    axes.set_yticks(range(len(bars)), names)
    axes.invert_yaxis()
    axes.set_title(title)
    axes.set_xlim(0, 1.15 * max(values))
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="x", labelbottom=False, length=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", type=Path, default=RESULTS / "overview.png")
    arguments = parser.parse_args()
    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - behind the choice of a backend

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 3.6), gridspec_kw={"wspace": 0.05}, layout="constrained")
    draw(left, times(), "Time of a step on a CPU, optax = 1\nclip, AdamW, schedule and mask", 2)
    draw(right, bytes_of_state(), "Optimizer state\nbytes per parameter", 3)
    figure.savefig(arguments.figure, dpi=150)
    print(f"wrote {arguments.figure.name}")


if __name__ == "__main__":
    main()
