"""Breaks the code in ways that matter, one at a time, and checks that the tests see it.

Run `python -m tests.mutations`; with `--quick` it makes ten, of all parts. Each is made in a copy; the test file
that mirrors the broken one, or the one named beside it, must fail. Exits with 1 if a mutant survives.
"""

import multiprocessing
import os
import queue
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tqdm import tqdm

from tests.mutants import MUTATIONS, QUICK, Mutation

ROOT = Path(__file__).parents[1]

SITE = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in type(finder).__module__]
"""
"""Runs when Python starts: the finder of an editable install would find the original before the copy."""

CACHED = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
"""Programs that no mutation touches are compiled once."""


FORKED = multiprocessing.get_context("forkserver")
"""Where tests start: processes that have imported JAX, and none of adamx."""
FORKED.set_forkserver_preload(["chex", "jax", "optax", "pytest"])


def run_tests(folder: Path, tests: str) -> None:
    """Runs tests on a copy, in a process of its own, which ends with pytest's code."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]  # of the original
    exec(SITE)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = str(folder)  # for processes that tests start
    os.chdir(folder)
    with (folder / "log").open("wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.exit(pytest.main(["-x", "-q", "-n", "0", "-p", "no:cacheprovider", f"tests/{tests}"]))


def survives(mutation: Mutation, folder: Path) -> bool:
    """Whether the tests still pass with the mutation in place."""
    path = folder / "adamx" / mutation.file
    source = path.read_text()
    path.write_text(source.replace(mutation.old, mutation.new))
    process = FORKED.Process(target=run_tests, args=(folder, mutation.must_fail))
    process.start()
    process.join()
    path.write_text(source)
    if process.exitcode not in (0, 1):
        raise SystemExit(f"mutation {mutation.what!r}: pytest could not run\n{(folder / 'log').read_text()}")
    return process.exitcode == 0


def copied(folder: Path) -> Path:
    """A copy of the package and its tests, found before the one that is installed."""
    from adamx.kernels.native import libraries  # noqa: PLC0415 - here, where no test starts

    for part in ("adamx", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "sitecustomize.py").write_text(SITE)
    for library in libraries():
        shutil.copy(library, folder / "adamx" / "kernels" / "cpu")
    return folder


def main(mutations: list[Mutation]) -> int:
    workers = os.cpu_count() or 1
    free: queue.SimpleQueue[Path] = queue.SimpleQueue()

    def survivor(mutation: Mutation) -> str:
        folder = free.get()
        try:
            return mutation.what if survives(mutation, folder) else ""
        finally:
            free.put(folder)

    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(workers) as pool:
        os.environ |= CACHED | {"JAX_COMPILATION_CACHE_DIR": f"{name}/programs", "PYTHONDONTWRITEBYTECODE": "1"}
        for worker in range(workers):
            free.put(copied(Path(name) / str(worker)))
        answers = tqdm(pool.map(survivor, mutations), total=len(mutations), unit="mutant", disable=None)
        survivors = [what for what in answers if what]
    for what in survivors:
        print(f"survived: {what}")
    print(f"{len(mutations) - len(survivors)} of {len(mutations)} mutants were caught")
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main(QUICK if "--quick" in sys.argv else MUTATIONS))
