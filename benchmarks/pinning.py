"""A benchmark on a number of cores: it starts again on them, before any library has made its threads."""

import argparse
import os
import sys


def add_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, metavar="N", help="run on N cores; all that there are by default")


def arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What the program is asked for, with --threads, once it runs on that many cores."""
    add_option(parser)
    asked = parser.parse_args()
    restart_on(asked.threads)
    return asked


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def restart_on(threads: int | None) -> None:
    """Starts this program again, with the same arguments, if it has another number of cores than it should.

    Libraries count the cores that they may use once, when they make their threads; so do the worker processes.
    """
    if threads is None or threads == cores():
        return
    if not hasattr(os, "sched_setaffinity") or not 1 <= threads <= cores():
        sys.exit(f"--threads {threads}: this process has {cores()} cores, or its system cannot limit them")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.execv(sys.executable, [sys.executable, *sys.argv])
