"""8-bit optimizers of other libraries, and the bytes that a step moves by the device's counters.

Both are optional: they need packages and a profiler that may not be there.
"""

import csv
import functools
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import remote
from harness import measure, spread
from on_gpu.record import Record
from on_gpu.speed import QUICK, QUICK_SAMPLE_S, SAMPLE_S, SIZES, optimizers
from workloads import bytes_moved, small_leaves, step_of

PEERS = {"bitsandbytes 8-bit": "bitsandbytes", "torchao 8-bit": "torchao"}
COUNTED = ("int8 auto", "float32 auto", "optax", "bfloat16 auto", "int8 composed")
METRICS = ("dram__bytes_read.sum", "dram__bytes_write.sum")
PROFILER = "ncu"
UNITS = {"byte": 1, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9}
COUNTED_SHAPE = (4096, 4096)
"""Larger than the caches of any card."""


def one_step(name: str, shape: tuple[int, ...]) -> None:
    """A step whose kernels are the only ones of its process: arrays come from the host."""
    import jax  # noqa: PLC0415 - a profiler attaches to this process

    optimizer, params = optimizers()[name], [np.ones(shape, np.float32)]
    state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(optimizer.tx.init, params))
    jax.block_until_ready(step_of(optimizer)(*jax.device_put((params, state, params))))


def in_a_process(name: str, shape: tuple[int, ...], seconds: float, profiler: Sequence[str] = ()) -> Any:
    """What a process printed that took a step, under a profiler or without one."""
    program = [sys.executable, "-m", "on_gpu.others", name, *map(str, shape)]
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    asked = [*profiler, *program]
    return subprocess.run(asked, capture_output=True, text=True, timeout=seconds, check=False, env=env)


def counted(name: str, shape: tuple[int, ...], seconds: float) -> dict[str, Any]:
    """Bytes between the memory and the caches in one step, beside those that it has to move."""
    asked = [PROFILER, "--csv", "--metrics", ",".join(METRICS), "--target-processes", "all"]
    done = in_a_process(name, shape, seconds, asked)
    lines = done.stdout.splitlines()
    table = [line for line in lines if line.startswith('"')]
    if not table:
        return {"counters": " ".join([*lines, *done.stderr.splitlines()])[-300:] or "none", "exit": done.returncode}
    moved, kernels = dict.fromkeys(METRICS, 0.0), set()
    for row in csv.DictReader(io.StringIO("\n".join(table))):
        if row.get("Metric Name") in moved:
            moved[row["Metric Name"]] += float(row["Metric Value"].replace(",", "")) * UNITS[row["Metric Unit"]]
            kernels.add((row["ID"], row["Kernel Name"]))
    params = small_leaves(1, *shape)
    size = params[0].size
    needed = bytes_moved(optimizers()[name], params) / size
    found = {metric.partition(".")[0]: bytes_in_all / size for metric, bytes_in_all in moved.items()}
    return {**found, "needed": needed, "kernels": len(kernels), "names": sorted(kernel for _, kernel in kernels)}


def ran(done: Any) -> dict[str, Any]:
    """That a process has ended well."""
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return {"ran": True}


def peers_of(record: Record, peer_python: str, *, quick: bool) -> None:
    """Time of a step of each library that is there."""
    params = small_leaves(1, *(QUICK if quick else SIZES)[0])
    with remote.started(peer_python, PEERS, device="cpu" if quick else "cuda") as peers:
        for name, why in peers.missing.items():
            record.add(name, missing=why)
        for name, builder in peers.builders(params).items():
            sample_s = QUICK_SAMPLE_S if quick else SAMPLE_S

            def find(name: str = name, builder: Any = builder, sample_s: float = sample_s) -> dict[str, Any]:
                seconds = measure({name: builder}, budget_s=1.0, builds=1, sample_s=sample_s)[name]
                return {"ms": spread([1e3 * s for s in seconds])}

            record.attempt(name, find)


def run(record: Record, *, quick: bool, peer_python: str) -> None:
    record.found("libraries", lambda: peers_of(record, peer_python, quick=quick))
    shape = QUICK[0] if quick else COUNTED_SHAPE
    if quick:
        record.attempt("one step", lambda: ran(in_a_process("int8 auto", shape, record.left())))
    if shutil.which(PROFILER) is None:
        record.add("counters", missing=f"{PROFILER} is not installed")
        return
    for name in COUNTED:
        seconds = max(5.0, record.left())
        record.attempt(f"bytes per parameter, {name}", functools.partial(counted, name, shape, seconds))


if __name__ == "__main__":
    one_step(sys.argv[1], tuple(map(int, sys.argv[2:])))
