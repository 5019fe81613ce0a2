"""`shard_state` over several devices and processes, each in programs of their own, and what it refuses."""

import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import adamx

PROGRAMS = Path(__file__).parents[1]
QUICK = ["clipped/Auto", "masked int8/Auto", "master weights/Explicit"]


def mesh(kind=AxisType.Auto):
    return jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",), axis_types=(kind,))


def run(program, *arguments):
    """Starts a program; its output when it has ended well."""
    result = subprocess.run(
        [sys.executable, "-W", "error", PROGRAMS / program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-500:] + result.stderr[-3000:]
    return result.stdout


@pytest.mark.slow
def test_eight_devices_equal_one():
    assert run("zero.py", *QUICK).count("ok") == len(QUICK)


@pytest.mark.slow
def test_eight_devices_equal_one_for_every_transformation_and_kind_of_mesh():
    assert run("zero.py").count("ok") == 20


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_norms_are_those_of_whole_arrays(kind):
    assert run("zero.py", "norms", kind).count("ok") == 1


@pytest.mark.slow
def test_layouts_collectives_and_restores():
    assert run("layouts.py").count("ok") == 9


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_processes_equal_one(count):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "error", PROGRAMS / "distributed.py", str(count)]
    started = [
        subprocess.Popen([*command, str(i), str(port)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for i in range(count)
    ]
    ended = [(*process.communicate(timeout=240), process.returncode) for process in started]
    for out, error, code in ended:
        assert code == 0, error[-3000:]
        assert f"of {count}: ok" in out


@pytest.mark.slow
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_update_is_that_of_the_transformation(kind):
    params, gradients = ({"w": jnp.arange(6.0).reshape(2, 3) - k, "s": jnp.float32(k), "n": None} for k in (1, 3))
    plain = adamx.adamw(1e-3, nu_dtype="bfloat16")
    tx = adamx.shard_state(plain, mesh(kind))
    expected = jax.jit(plain.update)(gradients, plain.init(params), params)
    got = jax.jit(tx.update)(gradients, tx.init(params), params)
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    assert all((a == b).all() for a, b in zip(*map(jax.tree.leaves, (got, expected)), strict=True))
    # Without parameters the gradients tell what is where.
    tx = adamx.shard_state(adamx.adam(1e-3), mesh(kind))
    updates, _ = jax.jit(tx.update)(gradients, tx.init(params))
    assert jax.tree.structure(updates) == jax.tree.structure(params)


def test_extra_arguments_reach_the_transformation():
    seen = {}

    def update(updates, state, params=None, *, value, name):
        seen.update(value=value, name=name)
        return updates, state

    tx = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    for kind in (AxisType.Auto, AxisType.Explicit):
        adamx.shard_state(tx, mesh(kind)).update(jnp.ones(2), optax.EmptyState(), value=jnp.float32(3), name="loss")
        assert float(seen.pop("value")) == 3
        assert seen.pop("name") == "loss"


def test_a_wrong_state_is_named():
    tx = adamx.shard_state(adamx.adam(1e-3), mesh())
    with pytest.raises(TypeError, match="expected the state that init returned"):
        jax.jit(tx.update)(jnp.ones(2), {"count": jnp.int32(0)}, jnp.ones(2))


def test_gradients_of_another_structure_are_named():
    tx, params = adamx.shard_state(adamx.adam(1e-3), mesh()), {"a": jnp.ones(2), "b": jnp.ones(3)}
    with pytest.raises(ValueError, match="structure of the parameter tree: missing b"):
        tx.update({"a": jnp.ones(2)}, tx.init(params), params)


def test_wrong_axes_raise():
    with pytest.raises(ValueError, match=r"axis must be one of the mesh's, \('data',\).*got 'batch'"):
        adamx.shard_state(adamx.adam(1e-3), mesh(), axis="batch")
    both = jax.sharding.Mesh(
        np.array(jax.devices()[:1]).reshape(1, 1), ("data", "model"), axis_types=(AxisType.Auto, AxisType.Explicit)
    )
    with pytest.raises(ValueError, match="all Auto or all Explicit"):
        adamx.shard_state(adamx.adam(1e-3), both)


def test_parameters_that_are_split_must_be_said_to_be():
    params = {"w": jax.device_put(jnp.ones((4, 4)), NamedSharding(mesh(), P("data")))}
    with pytest.raises(
        ValueError, match=r"parameter at w is placed as .*specs=jax.tree.map\(lambda p: p.sharding.spec"
    ):
        adamx.shard_state(adamx.adam(1e-3), mesh()).init(params)
    specs = jax.tree.map(lambda p: p.sharding.spec, params)
    assert adamx.shard_state(adamx.adam(1e-3), mesh(), specs=specs).init(params)[0].mu["w"].shape == (4, 4)
