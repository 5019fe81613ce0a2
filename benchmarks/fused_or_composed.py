"""Time of the fused step over that of the composed one with the same moments: whether anybody loses by choosing it.

    python benchmarks/fused_or_composed.py [--quick] [--json PATH] [--threads N]

Both have the same state, so either may be taken. A row above the bar is marked, the exit code is 0.
"""

import sys
from typing import Any

import bars
import options
import pinning
from contenders import BYTE, HALF
from harness import headline, measure, ratios, spread, table, verdict, write_json
from workloads import Optimizer, builders, one_leaf, resnet50, small_leaves

import adamx

COMPOSED, FUSED = "composed", "fused"
STORED = {"float32": {}, "bfloat16": HALF, "int8": BYTE}
SIZES, LEAVES = (1_000, 10_000, 100_000, 1_000_000, 16_000_000), (50, 200)


def timed(name: str, tree: Any, stored: str, *, quick: bool) -> dict[str, Any]:
    """One row, as it goes into the JSON file."""
    print(f"{name}, {stored}", file=sys.stderr)
    moments = STORED[stored]
    both = {
        COMPOSED: Optimizer(adamx.adam(1e-3, **moments)),
        FUSED: Optimizer(adamx.adam(1e-3, **moments), adamx.step),
    }
    seconds = measure(builders(both, tree), budget_s=0.3 if quick else 4.0, builds=1)
    milliseconds = {which: spread([1e3 * s for s in values]) for which, values in seconds.items()}
    ratio = ratios(seconds, COMPOSED)[FUSED]
    held = verdict(ratio, bars.EVERY_ROW)
    return {"case": name, "moments": stored, "milliseconds": milliseconds, "ratio": ratio, "verdict": held}


def cells(row: dict[str, Any]) -> list[str]:
    """One row as the table prints it."""
    times = [f"{row['milliseconds'][which].median:.4g}" for which in (COMPOSED, FUSED)]
    return [row["case"], row["moments"], *times, str(row["ratio"]), row["verdict"]]


def main() -> None:
    arguments = pinning.arguments(options.parser(__doc__, quick="a few small cases, under 30 seconds"))
    quick = arguments.quick
    trees = {f"{size:.1e} in 1 leaf": one_leaf(size) for size in (SIZES[1:2] if quick else SIZES)}
    trees |= {f"{n} leaves of 64x64": small_leaves(n) for n in (LEAVES[:1] if quick else LEAVES)}
    trees |= {} if quick else {"ResNet-50": resnet50()}
    rows = [timed(name, tree, stored, quick=quick) for name, tree in trees.items() for stored in STORED]
    print(headline(), f"fused step, {adamx.kernels.backend()}", "", sep="\n")
    header = ["step", "moments", "ms composed", "ms fused", "fused / composed", f"<= {bars.EVERY_ROW}"]
    print(table(header, [cells(row) for row in rows]))
    write_json(arguments.json, "fused_or_composed", {"rows": rows})


if __name__ == "__main__":
    main()
