"""Steps on sharded arrays under plain `jit`, on eight devices in the program `split.py`."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import export
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import adamx
from adamx.kernels.partition import _written

PROGRAM = Path(__file__).parents[1] / "split.py"
QUICK = ["int8/rows", "bfloat16/both", "master weights, int8/moments alone", "cut"]
# Before JAX made Shardy its partitioner XLA's own code takes what is sharded.
partitioned = pytest.mark.skipif(not jax.config.jax_use_shardy_partitioner, reason="XLA takes what is sharded")


def run(*names):
    command = [sys.executable, "-W", "error", PROGRAM, *names]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-500:] + result.stderr[-3500:]
    return result.stdout.count(": ok")


@partitioned
@pytest.mark.slow
def test_each_device_steps_its_shards_to_the_bits_of_one():
    assert run(*QUICK) == len(QUICK)


@partitioned
@pytest.mark.soak
def test_each_device_steps_its_shards_for_every_storage_and_placing():
    assert run() == 9 * 4 + 1


def abstract(shape, sharding):
    return jax.ShapeDtypeStruct(shape, "float32", sharding=sharding)


def test_how_an_array_is_split_is_found_from_where_its_parts_lie():
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "model"))
    assert _written(abstract((4, 6), NamedSharding(mesh, P("data", "model"))), mesh) == ()
    assert _written(abstract((4, 6), None), mesh) == ()


def test_a_step_that_is_exported_is_xlas_own():
    tx, x = adamx.adam(1e-3), jax.numpy.ones(100_000)
    exported = export.export(jax.jit(lambda p, s, g: adamx.step(tx, g, s, p)), platforms=("cpu", "cuda"))
    assert "CustomSPMDPartitioning" not in exported(x, tx.init(x), x).mlir_module()
