"""What several test files share: which tests run, how much memory they take, trees of every container, streams, x64."""

import gc
import itertools
import os
import resource
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

collect_ignore_glob = ["golden/make_*.py"]  # programs, not tests, as are:
collect_ignore = [
    "mutations.py",
    "sharded.py",
    "split.py",
    "zero.py",
    "host.py",
    "installed.py",
    "host_mesh.py",
    "host_processes.py",
    "layouts.py",
    "distributed.py",
    "meshes.py",
    "manual.py",
    "backends.py",
    "family.py",
    "averaging.py",
    "tiles.py",
]

WORKER = 1.5 * 2**30
"""The bytes of memory that a worker may take."""

FREED = 0.75 * WORKER
"""The bytes from which on compiled programs are freed."""
held = {"limit": FREED}

ended = itertools.count(1)
"""Counts the tests that have run in this worker."""

gc.set_threshold(100_000, 20, 100)
"""A collection walks the heap of the whole run, and JAX's beside it: at the defaults, a tenth of the time."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", metavar="K/N", help="of what `pytest` alone runs, the part K of N, from 0 on")


def pytest_configure(config: pytest.Config) -> None:
    """Keeps compiled programs for other workers and later runs, as compiling is most of the time; see --cache-clear."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and hasattr(config, "cache"):
        jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("programs")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Takes a sample for `pytest` alone. A path, -k or -m runs all that it selects; of soak tests the file is named."""
    option = config.option
    selected = config.args_source is config.ArgsSource.ARGS or option.keyword or option.markexpr
    taken = set(items if selected else sample(items, option.part))
    if not hasattr(jax, "shard_map"):  # jax 0.6 keeps it elsewhere than the example of shard_offsets says
        taken = {item for item in taken if not item.name.endswith("dither.shard_offsets")}
    files = {arg.partition("::")[0] for arg in config.args}
    if "soak" not in " ".join([*config.args, option.markexpr, option.keyword]):
        taken = {
            item for item in taken if not item.get_closest_marker("soak") or item.nodeid.partition("::")[0] in files
        }
    config.hook.pytest_deselected(items=[item for item in items if item not in taken])
    items[:] = [item for item in items if item in taken]


SHARE = 11
"""One in so many slow tests runs, and others with another version of JAX."""


def sample(items: list[pytest.Item], part: str | None = None) -> list[pytest.Item]:
    """One entry of each table, or of a part of them, another one with each version of JAX; of slow tests a share."""
    own, parts = map(int, (part or "0/1").split("/"))
    taken: dict[str, pytest.Item] = {}
    for item in sorted(items, key=lambda item: zlib.crc32(f"{jax.__version__} {item.nodeid}".encode())):
        table = item.nodeid.partition("[")[0]
        number = zlib.crc32(table.encode())
        if number // SHARE % parts != own:
            continue
        turn = number % SHARE == jax.__version_info__[1] % SHARE
        if turn or not item.get_closest_marker("slow"):
            taken.setdefault(table, item)
    return list(taken.values())


@pytest.hookimpl(wrapper=True)
def pytest_xdist_auto_num_workers() -> Any:
    """A worker for each core, as far as the memory that is free suffices."""
    cores = yield
    try:
        free = int(Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()[0]) * 1024
    except OSError:  # not Linux: half of all
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2
    return max(1, min(cores, int(free // WORKER)))


def pytest_collection_finish() -> None:
    """Leaves what was imported out of every further garbage collection."""
    gc.collect()
    gc.freeze()


def pytest_runtest_teardown() -> None:
    """Frees compiled programs where they take too much: those of a whole run are gigabytes."""
    if next(ended) % 10 == 0 and resident() > held["limit"]:
        jax.clear_caches()
        gc.collect()
        held["limit"] = max(FREED, resident() + WORKER / 10)


def resident() -> float:
    """The bytes of memory that this worker takes."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux: as much as ever
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Layer(NamedTuple):
    kernel: Any
    bias: Any


@pytest.fixture
def x64():
    """Turns 64-bit types on for one test."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def draw():
    """A function from (seed, dtype) to a nested tree of normal numbers: every container, a scalar, an empty leaf."""

    def tree(seed: int, dtype: Any = jnp.float32, scale: float = 1.0) -> Any:
        random = np.random.default_rng(seed)

        def leaf(*shape: int) -> jax.Array:
            x = random.standard_normal(shape) * scale * (random.random(shape) > 0.1)
            if jnp.issubdtype(dtype, jnp.complexfloating):
                x = x + 1j * random.standard_normal(shape) * scale
            return jnp.asarray(x, dtype)

        return {
            "encoder": [Layer(leaf(17, 5), leaf()), (None,)],
            "empty": leaf(0, 3),
            "wide": {"a": leaf(1031)},  # a vector loop with a remainder
        }

    return tree


@pytest.fixture
def stream(draw):
    """A function from (steps, dtype) to gradients over eight orders of magnitude, with steps that are all zero."""

    def gradients(steps: int, dtype: Any = jnp.float32) -> list[Any]:
        scales = [0.0 if t % 11 == 3 else 10.0 ** (t % 9 - 6) for t in range(steps)]
        return [draw(t, dtype, scale) for t, scale in enumerate(scales)]

    return gradients
