"""How everything here is timed: contenders side by side, compared round by round.

A contender takes a number of steps in a row and returns the seconds that one of them took. In every round each
contender is sampled once, in an order shuffled anew, and its time is divided by the baseline's of the same round: what
disturbs a whole round cancels. Ratios are medians of those quotients, never quotients of medians. A contender may live
in another process, see `remote.py`: it is idle between its samples.

Where a program lies in memory is worth up to a tenth of its time when it has many small operations, and the first one
built in a process lies best. So contenders are built anew several times, in another order each time.
"""

import dataclasses
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Contender = Callable[[int], float]
"""From a number of calls in a row to the mean seconds of one."""
Builder = Callable[[], Contender]

SAMPLE_S = 2e-3
"""The shortest time that one sample lasts: a fast contender is called several times for it."""

PACKAGES = ("jax", "jaxlib", "optax", "adamx")


@dataclasses.dataclass(frozen=True)
class Spread:
    """A median between its quartiles."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


def spread(values: Sequence[float]) -> Spread:
    """Quartiles by interpolation between the sorted values; of a single value, that value."""
    return Spread(*statistics.quantiles(values, n=4, method="inclusive")) if len(values) > 1 else Spread(*values * 3)


def ratios(seconds: Mapping[str, Sequence[float]], baseline: str) -> dict[str, Spread]:
    """Each contender's time over the baseline's of the same round."""
    base = seconds[baseline]
    return {name: spread([a / b for a, b in zip(own, base, strict=True)]) for name, own in seconds.items()}


def interleave(contenders: Mapping[str, Callable[[], T]], rounds: int, seed: int = 0) -> dict[str, list[T]]:
    """What each contender returned, round by round; the order within a round comes from the seed."""
    order, generator = list(contenders), random.Random(seed)
    returned: dict[str, list[T]] = {name: [] for name in contenders}
    for _ in range(rounds):
        generator.shuffle(order)
        for name in order:
            returned[name].append(contenders[name]())
    return returned


def per_call(call: Callable[[], Any]) -> Contender:
    """The contender that times a call which blocks until its results are there."""

    def contender(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - start) / calls

    return contender


def measure(
    builders: Mapping[str, Builder], *, budget_s: float, builds: int = 3, seed: int = 0, sample_s: float = SAMPLE_S
) -> dict[str, list[float]]:
    """Seconds a call, one number for each contender and round.

    Args:
        builders: what makes each contender, by name.
        budget_s: about how long the rounds may take in all; building and warming up come on top.
        builds: how often each contender is built; each is the first one equally often if there are as many of them.
        seed: of the order within a round.
        sample_s: the shortest time that one sample lasts.
    """
    names = list(builders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    builders[names[0]]()(1)  # takes the best place in memory from all of them
    for build in range(builds):
        first = build % len(names)
        contenders = {name: builders[name]() for name in names[first:] + names[:first]}
        for contender in contenders.values():
            contender(5)  # compiles, and fills caches
        each = {name: min(contender(1) for _ in range(5)) for name, contender in contenders.items()}
        calls = {name: max(1, round(sample_s / taken)) for name, taken in each.items()}
        samplers = {name: functools.partial(contender, calls[name]) for name, contender in contenders.items()}
        rounds = min(500, max(5, int(budget_s / builds / sum(calls[name] * each[name] for name in names))))
        for name, values in interleave(samplers, rounds, seed + build).items():
            seconds[name] += values
        del contenders, contender, samplers  # so that only one set of programs is in memory
    return seconds


def machine() -> dict[str, Any]:
    """Where the numbers come from; nothing that names the machine or its user."""
    cpuinfo = Path("/proc/cpuinfo")
    pairs = (line.partition(":")[::2] for line in cpuinfo.read_text().splitlines()) if cpuinfo.exists() else ()
    of_cpu = {key.strip(): value.strip() for key, value in pairs}
    name = of_cpu.get("model name", platform.machine())  # of a virtual one often without its generation
    generation = f" (family {of_cpu['cpu family']}, model {of_cpu['model']})" if "cpu family" in of_cpu else ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    installed = {d.metadata["Name"] for d in importlib.metadata.distributions()}
    return {
        "cpu": name + generation,
        "cores": cores,
        "system": platform.system(),
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        **{name: importlib.metadata.version(name) for name in PACKAGES if name in installed},
    }


def headline(where: Mapping[str, Any] | None = None) -> str:
    """The machine in one line, this one or that of an earlier run, to stand above a table."""
    return ", ".join(f"{key} {value}" for key, value in (where or machine()).items())


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be, the first one flush left."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        return "  ".join([cells[0].ljust(len(first)), *rest]).rstrip()

    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, rows)])


def verdict(ratio: Spread, bar: float) -> str:
    """Whether the median ratio is within the bar."""
    return "holds" if ratio.median <= bar else "OVER"


def compile_lightly() -> None:
    """The compiler's lightest level, for quick runs that time nothing: they mostly compile. Before JAX is used."""
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


def write_json(path: Path | None, program: str, result: Mapping[str, Any]) -> None:
    """The result with the machine it came from; no path, no file."""
    if path is not None:
        document = {"program": program, "machine": machine(), **result}
        path.write_text(json.dumps(document, indent=1, default=dataclasses.asdict) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote, its spreads as `Spread`."""
    names = {field.name for field in dataclasses.fields(Spread)}
    return json.loads(path.read_text(), object_hook=lambda found: Spread(**found) if set(found) == names else found)
