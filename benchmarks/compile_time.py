"""Time from a fresh optimizer to a compiled step, adamx composed and fused against optax: trace, lower and compile.

    python benchmarks/compile_time.py [--quick] [--json PATH]

Every sample builds a new optimizer and a new jitted step after `jax.clear_caches()`, in turns. A second optax beside
the first is the noise floor. The bar is a ratio of the sums of at most 1.3. A row that misses it is marked; the exit
code is 0. The columns between are the ratios of each phase, and of processor time, which neighbours disturb less.
"""

import functools
import gc
import sys
import time
from typing import Any

import jax
import options
from contenders import FLOOR, FUSED, OURS, THEIRS, adam
from harness import headline, interleave, ratios, spread, table, verdict, write_json
from workloads import Tree, count, gpt2_small, shapes_of, small_leaves, step_of

BAR = 1.3
COMPARED = (THEIRS, FLOOR, OURS, FUSED)
HELD = (OURS, FUSED)
PHASES = ("trace", "lower", "compile", "sum", "cpu")
COLUMNS = ("trace", "lower", "compile", "cpu")


def cases(quick: bool) -> dict[str, Tree]:
    """The trees of parameters by name."""
    sizes = [1, 50] if quick else [1, 50, 200, 800, 1600]
    trees = {f"{n} {'leaf' if n == 1 else 'leaves'} of 64x64": small_leaves(n) for n in sizes}
    return trees if quick else trees | {"GPT-2 small": gpt2_small()}


def compiled_from_nothing(name: str, params: Tree) -> tuple[float, ...]:
    """Seconds of each phase, their sum, and the seconds of processor time behind it: PHASES."""
    jax.clear_caches()
    gc.collect()
    optimizer = adam()[name]
    step, arguments = step_of(optimizer), shapes_of(optimizer, params)
    cpu_start, start = time.process_time(), time.perf_counter()
    traced = step.trace(*arguments)
    at_trace = time.perf_counter()
    lowered = traced.lower()
    at_lower = time.perf_counter()
    lowered.compile()
    end, cpu_end = time.perf_counter(), time.process_time()
    return at_trace - start, at_lower - at_trace, end - at_lower, end - start, cpu_end - cpu_start


def timed(name: str, params: Tree, budget_s: float) -> dict[str, Any]:
    """One row, as it goes into the JSON file."""
    print(name, file=sys.stderr)
    contenders = {label: functools.partial(compiled_from_nothing, label, params) for label in COMPARED}
    warm_up = interleave(contenders, rounds=1)
    round_s = sum(taken[0][PHASES.index("sum")] for taken in warm_up.values())
    samples = interleave(contenders, rounds=min(25, max(3, int(budget_s / round_s))))
    by_phase = {
        phase: {label: [phases[i] for phases in taken] for label, taken in samples.items()}
        for i, phase in enumerate(PHASES)
    }
    ratio = {phase: ratios(seconds, THEIRS) for phase, seconds in by_phase.items()}
    leaves, elements = count(params)
    return {
        "case": name,
        "leaves": leaves,
        "elements": elements,
        "rounds": len(samples[OURS]),
        "milliseconds": {
            phase: {label: spread([1e3 * s for s in values]) for label, values in seconds.items()}
            for phase, seconds in by_phase.items()
        },
        "ratio": {phase: {label: of[label] for label in (*HELD, FLOOR)} for phase, of in ratio.items()},
        "bar": {label: verdict(ratio["sum"][label], BAR) for label in HELD},
    }


def cells(row: dict[str, Any], held: str) -> list[str]:
    """One row of the table: a contender on a tree."""
    ms, ratio = row["milliseconds"], row["ratio"]
    return [
        f"{row['case']}: {held}",
        *(f"{ms['sum'][label].median:.4g}" for label in (THEIRS, held)),
        *(f"{ratio[phase][held].median:.2f}" for phase in COLUMNS),
        str(ratio["sum"][held]),
        str(ratio["sum"][FLOOR]),
        row["bar"][held],
    ]


def main() -> None:
    arguments = options.parser(__doc__, quick="two small cases, under 30 seconds").parse_args()

    budget_s = 4.0 if arguments.quick else 40.0
    rows = [timed(name, params, budget_s) for name, params in cases(arguments.quick).items()]
    print(headline())
    print()
    header = ["step", "ms optax", "ms", *COLUMNS, "over optax", "optax again / optax", f"<= {BAR}"]
    print(table(header, [cells(row, held) for row in rows for held in HELD]))
    write_json(arguments.json, "compile_time", {"bar": BAR, "rows": rows})


if __name__ == "__main__":
    main()
