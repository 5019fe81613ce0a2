"""What a jitted step costs before any arithmetic: tiny leaves, so that Python, JAX's dispatch and the calls remain.

    python benchmarks/dispatch.py [--quick] [--json PATH] [--threads N]

Every leaf has 8 elements. "us" is a whole step, waited for; "us a leaf" is the slope from one number of leaves to the
next. The fused step should cost at most 1.03 times what optax's does; a row that misses it is marked, the exit code is
0.
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import options
import pinning
from contenders import FLOOR, FUSED, OURS, THEIRS, adam
from harness import headline, measure, ratios, spread, table, verdict, write_json
from workloads import Tree, builders

import adamx

BAR = 1.03
ELEMENTS = 8
COMPARED = (THEIRS, FLOOR, OURS, FUSED)
HELD = (OURS, FUSED)


def tiny_leaves(leaves: int) -> Tree:
    return [jax.ShapeDtypeStruct((ELEMENTS,), jnp.float32)] * leaves


def timed(leaves: int, *, quick: bool) -> dict[str, Any]:
    """One row, as it goes into the JSON file."""
    print(f"{leaves} leaves", file=sys.stderr)
    effort = {"budget_s": 0.5, "builds": 1} if quick else {"budget_s": 12.0}
    compared = {name: optimizer for name, optimizer in adam().items() if name in COMPARED}
    seconds = measure(builders(compared, tiny_leaves(leaves)), **effort)
    return {
        "leaves": leaves,
        "rounds": len(seconds[FUSED]),
        "microseconds": {name: spread([1e6 * s for s in values]) for name, values in seconds.items()},
        "ratio": (ratio := ratios(seconds, THEIRS)),
        "bar": verdict(ratio[FUSED], BAR),
    }


def cells(row: dict[str, Any], before: dict[str, Any] | None) -> list[str]:
    """One row as the table prints it, with the slopes from the row before."""
    us = {name: of.median for name, of in row["microseconds"].items()}
    slopes = ["" for _ in (THEIRS, *HELD)]
    if before is not None:
        more = row["leaves"] - before["leaves"]
        slopes = [f"{(us[name] - before['microseconds'][name].median) / more:.2f}" for name in (THEIRS, *HELD)]
    times = [f"{us[name]:.1f}" for name in (THEIRS, *HELD)]
    return [str(row["leaves"]), *times, *slopes, *(str(row["ratio"][name]) for name in (FLOOR, *HELD)), row["bar"]]


def main() -> None:
    arguments = pinning.arguments(options.parser(__doc__, quick="up to 100 leaves, under 30 seconds"))

    numbers = [1, 10, 100] if arguments.quick else [1, 10, 100, 1000]
    rows = [timed(leaves, quick=arguments.quick) for leaves in numbers]
    print(headline(), f"fused step, {adamx.kernels.backend()}", "", sep="\n")
    names = (THEIRS, *HELD)
    header = ["leaves", *(f"us {n}" for n in names), *(f"us a leaf {n}" for n in names)]
    header += [*(f"{n} / optax" for n in (FLOOR, *HELD)), f"{FUSED} <= {BAR}"]
    print(table(header, [cells(row, before) for row, before in zip(rows, [None, *rows], strict=False)]))
    write_json(arguments.json, "dispatch", {"bar": BAR, "elements": ELEMENTS, "rows": rows})


if __name__ == "__main__":
    main()
