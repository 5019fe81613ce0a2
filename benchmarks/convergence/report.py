"""What a program of this folder is: something measured, tables, claims and a figure; and its command line.

    python benchmarks/convergence/NAME.py [--quick] [--out DIR]

A run prints its tables and claims and leaves `convergence_NAME.json` and `convergence_NAME.png` in DIR. DIR is
docs/results; with `--quick`, which does the same with fewer steps and seeds and proves nothing, a temporary folder. A
claim that does not hold is a result: the exit code is 0.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from claims import Claim

sys.path.append(str(Path(__file__).parents[1]))

from harness import compile_lightly, headline, machine, table

RESULTS = Path(__file__).parents[2] / "docs" / "results"
Data = Mapping[str, Any]


class Table(NamedTuple):
    """Rows of text, the first column names."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class Result(NamedTuple):
    """What was found.

    Attributes:
        setting: seeds, steps and what else the numbers depend on, in one sentence.
        tables: of the numbers.
        claims: judged by them.
        data: what the figure is drawn from, of numbers, strings, lists and dictionaries.
    """

    setting: str
    tables: Sequence[Table]
    claims: Sequence[Claim]
    data: Data


class Experiment(NamedTuple):
    """A program.

    Attributes:
        name: of its file.
        about: its docstring; the first line is the title.
        measure: the experiment, quick or whole.
        draw: a figure from the data, into a file.
        caption: what the figure shows.
        reading: written after the whole run: what its numbers say beyond the claims.
    """

    name: str
    about: str
    measure: Callable[[bool], Result]
    draw: Callable[[Data, Path], None]
    caption: str
    reading: str = ""


def curve(points: Sequence[float], curves: np.ndarray) -> dict[str, list[float | None]]:
    """Curves of several seeds, `(seeds, points)`, as mean, lowest and highest, in four digits; None if not finite."""
    bands = {"x": np.asarray(points), "mean": curves.mean(0), "low": curves.min(0), "high": curves.max(0)}
    return {name: [float(f"{v:.4g}") if np.isfinite(v) else None for v in values] for name, values in bands.items()}


def lines(result: Result) -> str:
    """The result as it is printed."""
    parts = [result.setting]
    parts += [f"{t.caption}\n\n{table(t.header, t.rows)}" for t in result.tables]
    parts += [str(claim) for claim in result.claims]
    return "\n\n".join(parts)


def carry_out(experiment: Experiment, quick: bool, out: Path) -> Result:
    """Measures, draws, and keeps the numbers."""
    result = experiment.measure(quick)
    document = {"machine": machine(), "quick": quick, **result._asdict()}
    document["tables"] = [t._asdict() for t in result.tables]
    document["claims"] = [c._asdict() for c in result.claims]
    text = json.dumps(document, default=float, ensure_ascii=False, allow_nan=False)
    (out / f"convergence_{experiment.name}.json").write_text(text + "\n")
    experiment.draw(json.loads(text)["data"], out / f"convergence_{experiment.name}.png")
    return result


def stored(experiment: Experiment, folder: Path) -> tuple[Result, Mapping[str, Any]]:
    """A result that was kept, and the machine that it came from."""
    document = json.loads((folder / f"convergence_{experiment.name}.json").read_text())
    tables = [Table(**t) for t in document["tables"]]
    claims = [Claim(**c) for c in document["claims"]]
    return Result(document["setting"], tables, claims, document["data"]), document["machine"]


def where(quick: bool, out: Path | None) -> Path:
    """The folder for what a run leaves."""
    if quick:
        compile_lightly()
    folder = out or (Path(tempfile.mkdtemp(prefix="convergence-")) if quick else RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def options(doc: str) -> argparse.ArgumentParser:
    """What every program here understands."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer steps and seeds, under 20 seconds")
    parser.add_argument("--out", type=Path, help="the folder for the numbers and the figure")
    return parser


def main(experiment: Experiment) -> int:
    """The command line of one program."""
    arguments = options(experiment.about).parse_args()
    out = where(arguments.quick, arguments.out)
    print(headline(), "", lines(carry_out(experiment, arguments.quick, out)), "", f"kept in {out}", sep="\n")
    return 0
