"""Time of one optimizer step: update and apply_updates, jitted, in place; adamx composed and fused, beside optax.

    python benchmarks/step_time.py [--quick] [--json PATH] [--figure PATH] [--threads N] [--only REGEX]
                                   [--peer-python PATH]

A second optax beside the first shows how far apart two equal programs come out: the noise floor of each row. torch and
DeepSpeed work in processes of their own, in the same rounds. Bars stand in `bars.py`; a row that misses one is marked,
the exit code is 0.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import bars
import contenders
import figures
import options
import pinning
import remote
from contenders import FLOOR, PEERS, THEIRS
from harness import headline, measure, table, write_json
from workloads import (
    Optimizer,
    Tree,
    as_row,
    builders,
    bytes_of,
    gpt2_small,
    one_leaf,
    resnet50,
    shapes_of,
    small_leaves,
    step_of,
)

import adamx

QUICK, SIZES = (1_000, 100_000, 1_000_000), (1_000, 10_000, 100_000, 1_000_000, 16_000_000, 100_000_000)
LARGEST = 16_000_000
"""Elements of the leaf whose bytes are counted."""

KINDS = ("argument", "output", "alias", "temp")
PEAK_BAR = 1.01
"""Of the bytes of parameters, gradients and state: all that a step may need."""


class Case(NamedTuple):
    """One row: optimizers on a tree, and whether those of other libraries do the same."""

    name: str
    params: Tree
    optimizers: dict[str, Optimizer]
    peers: bool


def cases(quick: bool, only: str) -> list[Case]:
    trees = {f"{size:.1e} in 1 leaf": one_leaf(size) for size in (QUICK if quick else SIZES)}
    trees |= {f"{n} leaves of 64x64": small_leaves(n) for n in ((50,) if quick else (50, 200, 800, 1600))}
    trees |= {} if quick else {"ResNet-50": resnet50(), "GPT-2 small": gpt2_small()}
    scheduled = ["1.0e+06 in 1 leaf"] if quick else ["1.0e+06 in 1 leaf", "1.6e+07 in 1 leaf", "200 leaves of 64x64"]
    adam, adamw = contenders.adam(), contenders.adamw()
    every = [Case(f"adam, {name}", tree, adam, True) for name, tree in trees.items()]
    every += [Case(f"adamw + schedule, {name}", trees[name], adamw, False) for name in scheduled]
    return [case for case in every if re.search(only, case.name)]


def timed(case: Case, peers: remote.Remotes, *, quick: bool) -> dict[str, Any]:
    """One row, as it goes into the JSON file."""
    print(case.name, file=sys.stderr)
    theirs = peers.builders(case.params) if case.peers else {}
    effort = {"budget_s": 0.3, "builds": 1} if quick else {"budget_s": 12.0}
    seconds = measure(builders(case.optimizers, case.params) | theirs, **effort)
    peers.release()
    found = as_row(case.name, case.params, seconds, THEIRS)
    return {
        **found,
        "missing": peers.missing if case.peers else dict.fromkeys(PEERS, "-"),
        "every_row": bars.every_row(found["ratio"], found["elements"]),
        "bars": bars.of_case(case.name, seconds),
    }


def memory(elements: int) -> dict[str, dict[str, Any]]:
    """Bytes a parameter of the compiled step, and whether it needs more than what stays: float32 has 16."""
    found = {}
    for name, optimizer in contenders.adam().items():
        if name == FLOOR:
            continue
        shapes = shapes_of(optimizer, one_leaf(elements))
        stats = step_of(optimizer).lower(*shapes).compile().memory_analysis()
        bytes_of_kind = {kind: getattr(stats, f"{kind}_size_in_bytes") / elements for kind in KINDS}
        peak = sum(bytes_of_kind.values()) - 2 * bytes_of_kind["alias"]
        stays = bytes_of(shapes) / elements
        verdict = "holds" if peak <= PEAK_BAR * stays else "OVER"
        found[name] = {**bytes_of_kind, "peak": peak, "stays": stays, "verdict": verdict}
    return found


def cells(row: dict[str, Any]) -> list[str]:
    """One row as the table prints it: medians."""
    names = [name for name in (*contenders.adam(), *PEERS) if name != THEIRS]
    ratio = {name: f"{of.median:.3f}" for name, of in row["ratio"].items()} | row["missing"]
    return [row["case"], f"{row['milliseconds'][THEIRS].median:.4g}", *map(ratio.get, names), row["every_row"]]


def report(rows: list[dict[str, Any]], bytes_a_parameter: dict[str, dict[str, Any]]) -> None:
    """Prints the tables: ratios by row, bars of single rows, bytes."""
    names = [name for name in (*contenders.adam(), *PEERS) if name != THEIRS]
    print(table(["time over optax's", "ms optax", *names, f"<= {bars.EVERY_ROW}"], [cells(row) for row in rows]))
    held = [bars.cells(bar) for row in rows for bar in row["bars"]]
    print()
    print(table(bars.HEADER, held) if held else "no row with a target of its own was timed")
    print()
    header = [f"bytes a parameter, {LARGEST:.1e} in 1 leaf", *KINDS, "peak", "stays", f"peak <= {PEAK_BAR} x stays"]
    found = bytes_a_parameter.items()
    numbers = [[name, *(f"{of[kind]:.6f}" for kind in (*KINDS, "peak", "stays")), of["verdict"]] for name, of in found]
    print(table(header, numbers))


def asked() -> argparse.Namespace:
    parser = options.parser(__doc__, quick="a few small cases, under 30 seconds")
    parser.add_argument("--figure", type=Path, metavar="PATH", help="also draw the rows of one leaf")
    parser.add_argument("--only", default="", metavar="REGEX", help="the rows whose name has a match")
    remote.add_option(parser)
    return pinning.arguments(parser)


def main() -> None:
    arguments = asked()
    chosen = cases(arguments.quick, arguments.only)
    with remote.started(arguments.peer_python, PEERS) as peers:
        rows = [timed(case, peers, quick=arguments.quick) for case in chosen]
        versions = peers.headline()
    bytes_a_parameter = memory(LARGEST)
    print(headline(), f"fused step, {adamx.kernels.backend()}", versions, "", sep="\n")
    report(rows, bytes_a_parameter)
    write_json(arguments.json, "step_time", {"peers": versions, "rows": rows, "bytes_a_parameter": bytes_a_parameter})
    if arguments.figure is not None:
        single = [row for row in rows if row["case"].startswith("adam,") and row["leaves"] == 1]
        figures.over_optax(single, THEIRS, FLOOR, arguments.figure)


if __name__ == "__main__":
    main()
