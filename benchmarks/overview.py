"""The figure of the README: the time of a whole optimizer step and the bytes of state, adamx beside others.

    python benchmarks/overview.py [--figure PATH]

Draws what is in docs/results: `training_step.json` and `memory.json`. Bytes of other libraries are from their formats:
two float32 numbers per parameter in optax and torch; in bitsandbytes two bytes, and two float32 scales for each 256
parameters.
"""

import argparse
from pathlib import Path

from figures import OURS, THEIRS, bars, page, save
from harness import Spread, read_json

RESULTS = Path(__file__).parents[1] / "docs" / "results"
MODELS = {"1.6e+07 in 1 leaf": "16 million parameters", "GPT-2 small": "GPT-2 small"}
STEPS = {"optax": "optax", "float32 moments": "adamx", "bfloat16 moments": "adamx, bfloat16"}
OTHERS = {"optax, torch": 8.0, "bitsandbytes, 8 bits": 2 + 2 * 4 / 256}
MOMENTS = {"float32": "adamx", "bfloat16": "adamx, bfloat16", "int8": "adamx, Int8", "int4": "adamx, Int4"}


def times(case: str) -> dict[str, Spread]:
    """The time of each step over optax's."""
    rows = {row["case"]: row for row in read_json(RESULTS / "training_step.json")["rows"]}
    return {words: rows[case]["ratio"][name] for name, words in STEPS.items()}


def bytes_of_state() -> dict[str, float]:
    """Bytes of state per parameter, the largest first."""
    found = read_json(RESULTS / "memory.json")["bytes"]
    ours = {words: found[f"float32, {name} moments"]["state"] for name, words in MOMENTS.items()}
    return dict(sorted((OTHERS | ours).items(), key=lambda item: -item[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", type=Path, default=RESULTS / "overview.png")
    arguments = parser.parse_args()
    figure = page(height=3.2)
    axes = figure.subplot_mosaic([["1.6e+07 in 1 leaf", "state"], ["GPT-2 small", "state"]])
    drawn = {case: (f"Time of a step over optax's,\n{words}", times(case), "{:.2f}") for case, words in MODELS.items()}
    drawn["state"] = "Bytes of state per parameter", bytes_of_state(), "{:.3g}"
    for key, (title, found, written) in drawn.items():
        bars(axes[key], found, [OURS if name.startswith("adamx") else THEIRS for name in found], written)
        axes[key].set_title(title, loc="left")
    save(figure, arguments.figure)
    print(f"wrote {arguments.figure.name}")


if __name__ == "__main__":
    main()
