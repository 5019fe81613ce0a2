"""Contenders in other processes, where their thread pools do not disturb this one; the workers are `peers.py`."""

import argparse
import contextlib
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from harness import Builder, Contender
from workloads import Tree

WORKER = Path(__file__).with_name("peers.py")
REST_S = 3e-3
"""How long a change of process takes: threads that have just worked still wait actively for a while."""


class Remote:
    """A worker and what it said of itself.

    Attributes:
        missing: why the optimizer is not there; None if it is.
        version: of its package.
    """

    def __init__(self, python: str, name: str, device: str):
        tools = os.pathsep.join([str(Path(python).parent), os.environ.get("PATH", "")])  # some compile when imported
        self._process = subprocess.Popen(
            [python, str(WORKER), name, device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PATH": tools},
        )
        self.missing: str | None = None
        self.version = ""

    def wait_until_ready(self) -> None:
        """Reads what the worker says first; apart from the start, so that workers start side by side."""
        first = self._answer()
        self.missing, self.version = first.get("missing"), first.get("version", "")

    def build(self, params: Tree) -> Contender:
        """The contender on a tree of these shapes."""
        self._ask(shapes=[list(leaf.shape) for leaf in jax.tree.leaves(params)])

        def contender(calls: int) -> float:
            time.sleep(REST_S)
            seconds = self._ask(calls=calls)["seconds"]
            time.sleep(REST_S)
            return seconds

        return contender

    def release(self) -> None:
        """Frees the worker's arrays."""
        self._ask(shapes=[])

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, **request: Any) -> dict[str, Any]:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker {self._process.args[2]} has ended with {self._process.wait()}")
        return json.loads(line)


class Remotes:
    """All the peers of a program: those that are there, and why the others are not."""

    def __init__(self, remotes: Mapping[str, Remote]):
        self.missing = {name: remote.missing for name, remote in remotes.items() if remote.missing is not None}
        self._there = {name: remote for name, remote in remotes.items() if remote.missing is None}

    def builders(self, params: Tree) -> dict[str, Builder]:
        return {name: functools.partial(remote.build, params) for name, remote in self._there.items()}

    def release(self) -> None:
        for remote in self._there.values():
            remote.release()

    def headline(self) -> str:
        """The versions of their packages, to stand below the machine's line."""
        versions = sorted({remote.version for remote in self._there.values()})
        return f"peers: {', '.join(versions) or 'none'}"


@contextlib.contextmanager
def started(python: str, names: Mapping[str, str], device: str = "cpu") -> Iterator[Remotes]:
    """Starts a worker for each name in `peers.py`, given by the name to print."""
    remotes = {label: Remote(python, name, device) for label, name in names.items()}
    try:
        for remote in remotes.values():
            remote.wait_until_ready()
        yield Remotes(remotes)
    finally:
        for remote in remotes.values():
            remote.close()


def add_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--peer-python", default=sys.executable, metavar="PATH", help="the interpreter that has the other libraries"
    )
