"""Everything that a GPU can tell about adamx, in at most eight minutes: correctness, times, tiles, memory.

    python benchmarks/gpu.py [--quick] [--json PATH] [--peer-python PATH] [--only SECTION...]

Each section is a file in `on_gpu/` and runs in a process of its own, so that one that raises, crashes or hangs costs
only itself. Sections have deadlines; time that one does not use goes to the next ones. The JSON file is whole after
every row; without `--json` it is gpu.json in the folder that the environment variable OUT names. `--quick` is a dry
run of all sections on the CPU with tiny arrays. It adds a section that raises and hangs, and checks that the others
run. The exit code is 1 if a section did not end, or a row of the dry run failed. Without a GPU it says so.
"""

import argparse
import contextlib
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import options
from harness import compile_lightly, headline, machine
from on_gpu.record import Record, loaded, written

SECTIONS = {"card": 25, "correctness": 130, "speed": 110, "tiles": 55, "trees": 85, "host": 35, "others": 30}
"""Seconds of each section, in their order; with starts and ends of processes less than eight minutes."""
BROKEN = "broken"
QUICK_S, BROKEN_S = 240, 7
"""Seconds of a section of the dry run: it ends long before, also on a machine that is busy."""
SOON_S = 4
"""A section is asked to end so many seconds before it is ended."""
ENDED, LATE, NO_GPU = "ended", "out of time", "no GPU"


def arguments_of() -> argparse.Namespace:
    parser = options.parser(__doc__, quick="a dry run of all sections on the CPU")
    parser.add_argument(
        "--peer-python", default=sys.executable, metavar="PATH", help="the interpreter that has torch and others"
    )
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="these sections")
    parser.add_argument("--section", help=argparse.SUPPRESS)  # what a process of its own does
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    return parser.parse_args()


def environment(*, quick: bool) -> dict[str, str]:
    """Of the processes: the CPU beside the GPU, memory for other libraries too, the peers' threads left alone."""
    found = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if quick:
        found |= {"JAX_PLATFORMS": "cpu"}
    elif found.get("JAX_PLATFORMS") and "cpu" not in found["JAX_PLATFORMS"]:
        found["JAX_PLATFORMS"] += ",cpu"
    return found


def run_section(name: str, path: Path, until: float, arguments: argparse.Namespace) -> str:
    """Runs a section in a process of its own and says how it ended."""
    print(f"\n== {name}, {until - time.time():.0f} seconds at most", flush=True)
    command = [sys.executable, __file__, "--section", name, "--until", str(until - SOON_S), "--json", str(path)]
    command += ["--peer-python", arguments.peer_python, *(["--quick"] if arguments.quick else [])]
    process = subprocess.Popen(command, env=environment(quick=arguments.quick), start_new_session=True)
    try:
        code = process.wait(max(1.0, until - time.time()))
    except subprocess.TimeoutExpired:
        code = None
    with contextlib.suppress(ProcessLookupError):  # workers of torch as well
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return {0: ENDED, 1: "failed", 3: NO_GPU, None: LATE}.get(code, f"ended with {code}")


def work(arguments: argparse.Namespace) -> int:
    """What the process of a section does; its exit code."""
    if arguments.quick:
        compile_lightly()
    record = Record(arguments.json, arguments.section, arguments.until)
    if not arguments.quick and arguments.section != "card" and jax.default_backend() == "cpu":
        record.ended(NO_GPU)
        return 3
    try:
        section = importlib.import_module(f"on_gpu.{arguments.section}")
        section.run(record, quick=arguments.quick, peer_python=arguments.peer_python)
    except Exception:
        traceback.print_exc()
        record.ended("failed", traceback=traceback.format_exc())
        return 1
    record.ended(ENDED)
    return 0


def wrong(name: str, section: Mapping[str, Any], *, quick: bool) -> list[str]:
    """What is not as it should be in a section that was run."""
    errors = [row["case"] for row in section["rows"] if "error" in row]
    if name == BROKEN:
        kept = section["status"] == LATE and len(section["rows"]) == 2 and len(errors) == 1
        return [] if kept else ["a section that raises and hangs was not recorded"]
    found = [] if section["status"] == ENDED else [f"{name}: {section['status']}"]
    return found + ([f"{name}: {case}" for case in errors] if quick else [])


def main() -> int:
    arguments = arguments_of()
    if arguments.section:
        return work(arguments)
    start, kept = time.time(), tempfile.TemporaryDirectory()
    folder = Path(os.environ.get("OUT") or kept.name)
    path = arguments.json = arguments.json or folder / "gpu.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"program": "gpu", "machine": machine(), "quick": arguments.quick, "sections": {}}
    written(path, document)
    print(headline(), flush=True)

    until = start
    for name in [*([BROKEN] if arguments.quick else []), *arguments.only]:
        until = time.time() + (BROKEN_S if name == BROKEN else QUICK_S) if arguments.quick else until + SECTIONS[name]
        began, status = time.time(), run_section(name, path, until, arguments)
        document = loaded(path)
        section = document["sections"].setdefault(name, {"rows": []})
        section |= {"status": status, "seconds": round(time.time() - began, 1)}
        written(path, document)
        print(f"-- {name}: {status}, {section['seconds']} seconds", flush=True)
        if status == NO_GPU:
            print("no GPU: JAX has none, nothing was timed")
            return 0
    bad = [x for name, section in document["sections"].items() for x in wrong(name, section, quick=arguments.quick)]
    print(f"\n{time.time() - start:.0f} seconds; not as it should be: {', '.join(bad) or 'nothing'}")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
