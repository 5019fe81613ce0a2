"""Time of a fused step over optax's by the size of leaves: from which size on int8 moments cost no time.

    python benchmarks/leaf_sizes.py [--quick] [--json PATH] [--threads N]

Leaves of any size are coded here (`min_size=0`): the table says which `min_size` to pass. A row above the bar is
marked, the exit code is 0.
"""

import sys
from typing import Any

import bars
import contenders
import options
import pinning
from contenders import FUSED, FUSED_BYTE, FUSED_HALF, THEIRS
from harness import headline, measure, ratios, spread, table, verdict, write_json
from workloads import Optimizer, builders, small_leaves

import adamx

LEAVES, SIZES, WIDTH = (1, 12, 50, 200), (4_096, 8_192, 16_384, 32_768, 65_536, 131_072), 128
CODEC = adamx.storage.Int8(min_size=0)
ADAM = contenders.adam() | {
    FUSED_BYTE: Optimizer(adamx.adam(1e-3, mu_dtype=CODEC, nu_dtype=CODEC), adamx.step),
}
SHOWN = (FUSED, FUSED_HALF, FUSED_BYTE)


def timed(leaves: int, size: int, *, quick: bool) -> dict[str, Any]:
    """One row, as it goes into the JSON file."""
    print(f"{leaves} leaves of {size}", file=sys.stderr)
    optimizers = {name: ADAM[name] for name in (THEIRS, *SHOWN)}
    effort = {"budget_s": 0.3, "builds": 1} if quick else {"budget_s": 4.0}
    seconds = measure(builders(optimizers, small_leaves(leaves, size // WIDTH, WIDTH)), **effort)
    milliseconds = {name: spread([1e3 * s for s in values]) for name, values in seconds.items()}
    return {"leaves": leaves, "size": size, "milliseconds": milliseconds, "ratio": ratios(seconds, THEIRS)}


def cells(row: dict[str, Any]) -> list[str]:
    """One row as the table prints it."""
    found = [str(row["ratio"][name]) for name in SHOWN]
    held = verdict(row["ratio"][FUSED_BYTE], bars.EVERY_ROW)
    return [str(row["leaves"]), f"{row['size']:,}", f"{row['milliseconds'][THEIRS].median:.4g}", *found, held]


def main() -> None:
    arguments = pinning.arguments(options.parser(__doc__, quick="a few small cases, under 30 seconds"))
    quick = arguments.quick
    pairs = [(n, size) for n in (LEAVES[:2] if quick else LEAVES) for size in (SIZES[::3] if quick else SIZES)]
    rows = [timed(n, size, quick=quick) for n, size in pairs]
    print(headline(), f"fused step, {adamx.kernels.backend()}", "", sep="\n")
    header = ["leaves", "elements of each", "ms optax", *(f"{name} / optax" for name in SHOWN)]
    print(table([*header, f"int8 <= {bars.EVERY_ROW}"], [cells(row) for row in rows]))
    write_json(arguments.json, "leaf_sizes", {"rows": rows})


if __name__ == "__main__":
    main()
