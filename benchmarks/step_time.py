"""Time of one optimizer step, adamx against optax: update and apply_updates, jitted, in place.

    python benchmarks/step_time.py [--quick] [--json PATH]

A second optax beside the first shows how far apart two equal programs come out: the noise floor of each row. The bar is
a ratio of at most 1.03 wherever there are more than 1e5 elements. A row that misses it is marked; the exit code is 0.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import optax
from harness import headline, measure, ratios, spread, table, verdict, write_json
from workloads import Tree, builders, count, one_leaf, shapes_of, small_leaves, step_of

import adamx

BAR = 1.03
BAR_FROM = 100_000
OURS, THEIRS, FLOOR = "adamx", "optax", "optax again"
LIBRARIES = {THEIRS: optax, FLOOR: optax, OURS: adamx}
LARGEST = 16_000_000


class Case(NamedTuple):
    """One row: an optimizer under its name in both libraries, on a tree."""

    name: str
    params: Tree
    build: Callable[[Any], optax.GradientTransformation]


def adam(library: Any) -> optax.GradientTransformation:
    return library.adam(1e-3)


def adamw(library: Any) -> optax.GradientTransformation:
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1e-3, warmup_steps=100, decay_steps=10_000)
    return library.adamw(schedule, weight_decay=0.01)


def cases(quick: bool) -> list[Case]:
    sizes = [1_000, 100_000, 1_000_000] if quick else [1_000, 10_000, 100_000, 300_000, 1_000_000, 3_000_000, LARGEST]
    leaves = [50] if quick else [50, 200, 800, 1600]
    trees = {f"{size:.1e} in 1 leaf": one_leaf(size) for size in sizes}
    trees |= {f"{n} leaves of 64x64": small_leaves(n) for n in leaves}
    scheduled = {f"{sizes[-1]:.1e} in 1 leaf": one_leaf(sizes[-1])}
    if not quick:
        scheduled = {"1.0e+06 in 1 leaf": one_leaf(1_000_000)} | scheduled | {"200 leaves of 64x64": small_leaves(200)}
    return [Case(f"adam, {name}", tree, adam) for name, tree in trees.items()] + [
        Case(f"adamw + schedule, {name}", tree, adamw) for name, tree in scheduled.items()
    ]


def timed(case: Case, budget_s: float) -> dict[str, Any]:
    """One row, as it goes into the JSON file."""
    print(case.name, file=sys.stderr)
    transformations = {name: case.build(library) for name, library in LIBRARIES.items()}
    seconds = measure(builders(transformations, case.params), budget_s=budget_s)
    by_round = ratios(seconds, THEIRS)
    leaves, elements = count(case.params)
    return {
        "case": case.name,
        "leaves": leaves,
        "elements": elements,
        "rounds": len(seconds[OURS]),
        "milliseconds": {name: spread([1e3 * s for s in values]) for name, values in seconds.items()},
        "ratio": {name: by_round[name] for name in (OURS, FLOOR)},
        "bar": verdict(by_round[OURS], BAR) if elements > BAR_FROM else "none",
    }


def memory(elements: int) -> dict[str, dict[str, float]]:
    """Bytes a parameter of the compiled step: p, m, v and g go in, 16; p, m and v come out in their place, 12."""
    found = {}
    for name, library in {THEIRS: optax, OURS: adamx}.items():
        tx = adam(library)
        stats = step_of(tx).lower(*shapes_of(tx, one_leaf(elements))).compile().memory_analysis()
        kinds = ("argument", "output", "alias", "temp")
        found[name] = {kind: getattr(stats, f"{kind}_size_in_bytes") / elements for kind in kinds}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few small cases, under 30 seconds")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the numbers to a file")
    arguments = parser.parse_args()

    rows = [timed(case, budget_s=0.5 if arguments.quick else 12.0) for case in cases(arguments.quick)]
    memory_of = memory(LARGEST)
    print(headline())
    print()
    print(table(["step", "ms optax", "ms adamx", "adamx / optax", "optax again / optax", f"<= {BAR}"], cells(rows)))
    print()
    kinds = list(memory_of[OURS])
    by_library = [[name, *(f"{of[kind]:.6f}" for kind in kinds)] for name, of in memory_of.items()]
    print(table([f"bytes a parameter, {LARGEST:.1e} in 1 leaf", *kinds], by_library))
    write_json(arguments.json, "step_time", {"bar": BAR, "rows": rows, "bytes_a_parameter": memory_of})


def cells(rows: list[dict[str, Any]]) -> list[list[str]]:
    """The rows as the table prints them."""
    return [
        [
            row["case"],
            *(f"{row['milliseconds'][name].median:.4g}" for name in (THEIRS, OURS)),
            *(str(row["ratio"][name]) for name in (OURS, FLOOR)),
            row["bar"],
        ]
        for row in rows
    ]


if __name__ == "__main__":
    main()
