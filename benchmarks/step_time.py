"""Time of one optimizer step: update and apply_updates, jitted, in place; adamx composed and fused, beside optax.

    python benchmarks/step_time.py [--quick] [--json PATH] [--from PATH] [--figure PATH] [--threads N]
                                   [--only REGEX] [--peer-python PATH]

A second optax beside the first shows how far apart two equal programs come out: the noise floor of each row. torch and
DeepSpeed work in processes of their own, in the same rounds. Bars stand in `bars.py`; a row that misses one is marked,
the exit code is 0. `--from` prints and draws the numbers of an earlier `--json` and measures nothing.
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
from contenders import FLOOR, FUSED, FUSED_BYTE, FUSED_HALF, OURS, PEERS, THEIRS
from harness import headline, measure, read_json, table, write_json
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


SHOWN = {
    "adam, 1.0e+05 in 1 leaf": "1e5 parameters, 1 leaf",
    "adam, 1.6e+07 in 1 leaf": "1.6e7 parameters, 1 leaf",
    "adam, 1600 leaves of 64x64": "1,600 leaves of 64x64",
    "adam, ResNet-50": "ResNet-50, 161 leaves",
    "adam, GPT-2 small": "GPT-2 small, 148 leaves",
}
NAMES = {OURS: "adamx, composed", FUSED: "adamx", FUSED_HALF: "adamx, bfloat16", FUSED_BYTE: "adamx, Int8"}
NAMES |= {name: name for name in ("torch fused", "DeepSpeed")}


def draw(rows: list[dict[str, Any]], bytes_a_parameter: dict[str, dict[str, Any]], path: Path) -> None:
    """A panel for each row of SHOWN, with lines from quartile to quartile, and one for bytes; dashed: optax."""
    shown = [row for row in rows if row["case"] in SHOWN]
    figure, axes = figures.panels(3, -(-(len(shown) + 1) // 3), height=2.5, sharey=True)
    colours = [figures.OURS if name.startswith("adamx") else figures.THEIRS for name in NAMES.values()]
    longest = max((row["ratio"][name].high for row in shown for name in NAMES if name in row["ratio"]), default=1.0)
    for axis, row in zip(axes, shown, strict=False):
        figures.bars(axis, {words: row["ratio"].get(name) for name, words in NAMES.items()}, colours)
        axis.axvline(1, color="0.2", linewidth=0.8, linestyle="--")
        axis.set(title=SHOWN[row["case"]], xlim=(0, 1.25 * longest))
    last, peaks = axes[len(shown)], {name: found["peak"] for name, found in bytes_a_parameter.items()}
    figures.bars(last, {words: peaks.get(name) for name, words in NAMES.items()}, colours, "{:.3g}")
    last.axvline(peaks[THEIRS], color="0.2", linewidth=0.8, linestyle="--")
    last.set_title("bytes per parameter")
    for axis in axes[len(shown) + 1 :]:
        axis.set_visible(False)
    figures.save(figure, path)


def asked() -> argparse.Namespace:
    parser = options.parser(__doc__, quick="a few small cases, under 30 seconds")
    parser.add_argument("--from", type=Path, metavar="PATH", dest="earlier", help="an earlier --json to print and draw")
    parser.add_argument("--figure", type=Path, metavar="PATH", help="also draw some rows and the bytes")
    parser.add_argument("--only", default="", metavar="REGEX", help="the rows whose name has a match")
    remote.add_option(parser)
    return pinning.arguments(parser)


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """What goes into the JSON file."""
    chosen = cases(arguments.quick, arguments.only)
    with remote.started(arguments.peer_python, PEERS) as peers:
        rows = [timed(case, peers, quick=arguments.quick) for case in chosen]
        versions = peers.headline()
    return {"peers": versions, "rows": rows, "bytes_a_parameter": memory(LARGEST)}


def main() -> None:
    arguments = asked()
    found = read_json(arguments.earlier) if arguments.earlier else measured(arguments)
    kernel = "" if arguments.earlier else f"fused step, {adamx.kernels.backend()}\n"
    print(headline(found.get("machine")), f"{kernel}{found['peers']}", "", sep="\n")
    report(found["rows"], found["bytes_a_parameter"])
    if arguments.earlier is None:
        write_json(arguments.json, "step_time", found)
    if arguments.figure is not None:
        draw(found["rows"], found["bytes_a_parameter"], arguments.figure)


if __name__ == "__main__":
    main()
