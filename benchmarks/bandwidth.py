"""Which share of the machine's memory bandwidth the fused step reaches, on one core and on all.

    python benchmarks/bandwidth.py [--quick] [--json PATH] [--threads N]

The limit is a loop in C with the traffic of Adam, 28 bytes a parameter, see `streaming.py`: over arrays on ordinary
pages, as JAX's are, and on huge pages where the system gives them. Steps and loops alternate in one process; each
number of cores has a process of its own. The bar is 70 % of the loop on ordinary pages; the exit code is 0.
"""

import argparse
import dataclasses
import json
import mmap
import subprocess
import sys
from typing import Any

import numpy as np
import options
import pinning
import streaming
from contenders import FUSED, THEIRS, adam
from harness import Builder, Spread, headline, measure, per_call, ratios, spread, table, write_json
from workloads import builders, one_leaf

import adamx

ELEMENTS, QUICK = 16_000_000, 4_000_000
BAR = 0.70
LOOP, HUGE = "loop", "loop, huge pages"


def on_pages(elements: int, *, huge: bool) -> list[np.ndarray]:
    """Four arrays of ones in memory of their own."""
    arrays = []
    for _ in range(4):
        memory = mmap.mmap(-1, 4 * elements, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        advice = "MADV_HUGEPAGE" if huge else "MADV_NOHUGEPAGE"
        if hasattr(mmap, advice):
            memory.madvise(getattr(mmap, advice))
        arrays.append(np.frombuffer(memory, np.float32))
        arrays[-1][:] = 1
    return arrays


def measured(elements: int, budget_s: float) -> dict[str, Any]:
    """One row: this process with the cores that it has."""
    run, threads = streaming.compiled(streaming.compiler()), pinning.cores()

    def loop(huge: bool) -> Builder:
        arrays = on_pages(elements, huge=huge)
        return lambda: per_call(streaming.over(run, arrays, threads))

    steps = {name: optimizer for name, optimizer in adam().items() if name in (THEIRS, FUSED)}
    contenders = builders(steps, one_leaf(elements)) | {LOOP: loop(huge=False), HUGE: loop(huge=True)}
    seconds = measure(contenders, budget_s=budget_s)
    rate = {name: spread([streaming.BYTES * elements / s / 1e9 for s in values]) for name, values in seconds.items()}
    share = {limit: ratios(seconds, FUSED)[limit] for limit in (LOOP, HUGE)}  # of rates: the inverse of times
    verdict = "holds" if share[LOOP].median >= BAR else "UNDER"
    return {"threads": threads, "elements": elements, "gigabytes_a_second": rate, "share": share, "verdict": verdict}


def in_a_process(threads: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The row of another process, on this many cores."""
    quick = ["--quick"] if arguments.quick else []
    command = [sys.executable, __file__, "--row", "--threads", str(threads), *quick]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def cells(row: dict[str, Any]) -> list[str]:
    """One row as the table prints it."""
    rates = [f"{row['gigabytes_a_second'][name]['median']:.2f}" for name in (HUGE, LOOP, THEIRS, FUSED)]
    shares = [str(Spread(**row["share"][limit])) for limit in (HUGE, LOOP)]
    return [str(row["threads"]), *rates, *shares, row["verdict"]]


def main() -> None:
    parser = options.parser(__doc__, quick="4 million parameters, under 30 seconds")
    parser.add_argument("--row", action="store_true", help=argparse.SUPPRESS)
    pinning.add_option(parser)
    arguments = parser.parse_args()
    if streaming.compiler() is None:
        print("no C compiler: the limit of this machine's memory cannot be measured")
        return
    if arguments.row:
        pinning.restart_on(arguments.threads)
        effort = (QUICK, 1.0) if arguments.quick else (ELEMENTS, 20.0)
        print(json.dumps(measured(*effort), default=dataclasses.asdict))
        return

    counts = [arguments.threads] if arguments.threads else sorted({1, pinning.cores()})
    rows = [in_a_process(threads, arguments) for threads in counts]
    print(headline(), f"fused step, {adamx.kernels.backend()}", "", sep="\n")
    header = ["cores", *(f"GB/s {name}" for name in (HUGE, LOOP, THEIRS, FUSED))]
    print(table([*header, f"fused / {HUGE}", f"fused / {LOOP}", f">= {BAR:.2f}"], [cells(row) for row in rows]))
    write_json(arguments.json, "bandwidth", {"bar": BAR, "rows": rows})


if __name__ == "__main__":
    main()
