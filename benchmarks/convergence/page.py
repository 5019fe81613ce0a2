"""The page docs/experiments.md: every claim, table and figure, from the numbers that the programs kept."""

from collections.abc import Sequence
from pathlib import Path

from report import Experiment, Table, stored

INTRODUCTION = """# Experiments

Claims about Adam, of its paper and of its critics, tested on small problems. Each is a program in
`benchmarks/convergence` that states in advance when the claim holds, and decides by the numbers. If a criterion or a
problem was changed after a first look, the program says so. Claims that did not hold are on this page too. The page
is written by `python benchmarks/convergence/run_all.py`; `--page-only` writes it again from the numbers in
`docs/results/convergence_*.json`.

How to read it: seeds fix the start, the batches and the noise, equally for all methods of a comparison. "±" is the
standard deviation over the seeds. In a comparison each method has its own learning rate, the best of a grid that is
the same for all and was widened until the best was inside; the search used other seeds than the report
(`benchmarks/convergence/tuning.py`). Costs are those of training, as in the paper: these
are claims about optimization. The models and data are small. What holds here need not hold at scale, and what does
not hold here may.
"""


def markdown(table: Table) -> str:
    """A table as Markdown."""
    rows = [table.header, ["---"] * len(table.header), *table.rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in rows)


def title(experiment: Experiment) -> str:
    """The first line of its docstring."""
    return experiment.about.partition("\n")[0]


def overview(experiments: Sequence[Experiment], folder: Path) -> str:
    """All claims in one table."""
    rows = []
    for experiment in experiments:
        for claim in stored(experiment, folder)[0].claims:
            rows.append(
                [f"[{experiment.name}](#{experiment.name})", claim.text, "held" if claim.held else "**did not hold**"]
            )
    held = sum(row[2] == "held" for row in rows)
    table = markdown(Table("", ["program", "claim", "here"], rows))
    return f"## All claims\n\n{held} of {len(rows)} held.\n\n{table}"


def section(experiment: Experiment, folder: Path, figures: str) -> str:
    """One experiment."""
    result, machine = stored(experiment, folder)
    about = experiment.about.partition("\n")[2].strip()
    claims = "\n".join(
        f"- **{'Held' if c.held else 'Did not hold'}**: {c.text}. Criterion: {c.criterion}. Found: {c.numbers}."
        for c in result.claims
    )
    figure = f"![{title(experiment)}]({figures}convergence_{experiment.name}.png)\n\n*{experiment.caption}*"
    versions = f"{machine['date']}, jax {machine['jax']}, optax {machine['optax']}"
    where = f"`python benchmarks/convergence/{experiment.name}.py`, {versions}."
    tables = [f"{table.caption}:\n\n{markdown(table)}" for table in result.tables]
    parts = [f'<a id="{experiment.name}"></a>\n\n## {title(experiment)}', about, figure, *tables, claims]
    return "\n\n".join([*parts, *([experiment.reading] if experiment.reading else []), f"{result.setting} {where}"])


def write_page(experiments: Sequence[Experiment], folder: Path, path: Path) -> None:
    """The whole page; figures are drawn anew from what was kept."""
    for experiment in experiments:
        experiment.draw(stored(experiment, folder)[0].data, folder / f"convergence_{experiment.name}.png")
    figures = "" if folder == path.parent else f"{folder.relative_to(path.parent)}/"
    parts = [INTRODUCTION.strip(), overview(experiments, folder), *(section(e, folder, figures) for e in experiments)]
    path.write_text("\n\n".join(parts) + "\n")
