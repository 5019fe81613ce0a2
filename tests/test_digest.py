import subprocess
import sys
import tracemalloc
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.digest import fingerprint


class Pair(NamedTuple):
    b: object
    a: object


TREE = {"w": jnp.arange(6.0).reshape(2, 3), "n": [jnp.int32(3), None, (jnp.zeros((0, 2), jnp.bfloat16),)]}


def test_is_a_sha_256_that_stays():
    # A digest is stored beside a checkpoint: this one must never change.
    tree = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": [np.int32(3)]}
    assert fingerprint(tree) == "c5dbf38ef4c9730d7a61eacfb7d5a72769bb85247e73fb6a3c338f73ec5595f8"


@pytest.mark.parametrize(
    "same",
    [
        jax.tree.map(np.asarray, TREE),
        jax.tree.map(lambda x: np.asarray(x, order="F"), TREE),
        {"n": (jnp.int32(3), (jnp.zeros((0, 2), jnp.bfloat16),)), "w": TREE["w"]} | {"n": TREE["n"]},
        {**TREE, "w": np.arange(6.0, dtype=">f4").reshape(2, 3)},
        {**TREE, "w": jax.jit(lambda x: x)(TREE["w"])},
    ],
    ids=["numpy", "Fortran order", "another container", "big-endian", "computed"],
)
def test_equal_trees_have_one(same):
    assert fingerprint(same) == fingerprint(TREE)


def test_containers_count_by_their_paths():
    assert fingerprint(Pair(jnp.ones(2), jnp.zeros(2))) == fingerprint({"a": jnp.zeros(2), "b": jnp.ones(2)})
    assert fingerprint([jnp.ones(2)]) == fingerprint((jnp.ones(2), None)) == fingerprint({0: jnp.ones(2)})
    ours, theirs = adamx.adam(1e-3).init(TREE["w"]), optax.adam(1e-3).init(TREE["w"])
    assert fingerprint(ours) == fingerprint(theirs)
    assert fingerprint({"a/b": jnp.ones(1)}) != fingerprint({"a": {"b": jnp.ones(1)}})


def test_weak_types_and_python_numbers():
    weak = jnp.asarray(2.0)
    assert weak.weak_type
    assert fingerprint(weak) == fingerprint(jnp.float32(2.0)) == fingerprint(2.0) == fingerprint(np.float32(2.0))
    assert fingerprint(True) == fingerprint(jnp.asarray(True)) != fingerprint(1)


nan = np.array([0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.float32(0.0), np.float32(-0.0)),
        (nan[:1], nan[1:]),
        (np.ones(2, np.float32), np.ones(2, np.int32).view(np.float32)),
        (np.ones(4), np.ones((2, 2))),
        (np.ones((1, 4)), np.ones((4, 1))),
        (np.zeros(2, np.int32), np.zeros(2, np.uint32)),
        (np.zeros(2, np.float32), np.zeros(4, np.float16)),
        ({"a": np.ones(1)}, {"b": np.ones(1)}),
        ({"a": np.ones(1), "b": np.zeros(1)}, {"b": np.ones(1), "a": np.zeros(1)}),
        ((np.ones(1), np.ones(2)), (np.ones(2), np.ones(1))),
        ({}, np.zeros(0)),
        (np.zeros((0, 3)), np.zeros((3, 0))),
    ],
)
def test_different_trees_have_others(a, b):
    assert fingerprint(a) != fingerprint(b)


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "int4", "bool", "complex64", "uint8", "float16"])
def test_every_bit_of_every_dtype(dtype):
    x = jnp.ones((3, 5), dtype)
    assert fingerprint(x) == fingerprint(np.asarray(x))
    others = [x.at[place].set(jnp.zeros((), dtype)) for place in ((0, 0), (2, 4))]
    assert len({fingerprint(a) for a in (x, *others)}) == 3


def test_random_keys():
    key = jax.random.key(1)
    assert fingerprint({"key": key}) == fingerprint({"key": jax.random.clone(key)})
    assert fingerprint(key) != fingerprint(jax.random.key(2))
    assert fingerprint(key) != fingerprint(jax.random.key_data(key))
    assert fingerprint(key) != fingerprint(jax.random.key(1, impl="unsafe_rbg"))


class Elsewhere:
    is_fully_addressable = False


@pytest.mark.parametrize(
    "leaf", ["text", object(), np.array(["text"]), np.array([None]), jax.ShapeDtypeStruct((2,), "f4")]
)
def test_what_holds_no_numbers_is_refused(leaf):
    with pytest.raises(TypeError, match=r"needs an array of numbers at a/0, got"):
        fingerprint({"a": [leaf]})


def test_shards_elsewhere_are_refused():
    with pytest.raises(ValueError, match=r"all of the array at a, .*process_allgather"):
        fingerprint({"a": Elsewhere()})


def test_traced_values_are_refused():
    with pytest.raises(TypeError, match="outside of jit"):
        jax.jit(lambda x: fingerprint({"a": x}))(1.0)


def test_holds_one_leaf_at_a_time():
    leaves = [jnp.full((1 << 18,), i, jnp.float32) for i in range(8)]
    fingerprint(leaves[:1])
    tracemalloc.start()
    fingerprint(leaves)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2.1 * leaves[0].nbytes  # the new one is read while the last one still has a name


SHARDED = """
import tracemalloc
import jax, jax.numpy as jnp, numpy as np, adamx
from jax.sharding import NamedSharding, PartitionSpec as P
mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(2, 2), ("x", "y"))
x = jnp.arange(48.0).reshape(8, 6)
key = jax.random.split(jax.random.key(0), 4)
for spec in (P(), P("x"), P(None, "y"), P("x", "y"), P(("x", "y"))):
    placed = jax.device_put({"x": x}, NamedSharding(mesh, spec))
    assert adamx.digest.fingerprint(placed) == adamx.digest.fingerprint({"x": x}), spec
placed = jax.device_put(key, NamedSharding(mesh, P("x")))
assert adamx.digest.fingerprint(placed) == adamx.digest.fingerprint(key)
big = [jax.device_put(jnp.zeros((1024, 1024)), NamedSharding(mesh, P("x", "y"))) for _ in range(8)]
tracemalloc.start()
adamx.digest.fingerprint(big)
left, peak = tracemalloc.get_traced_memory()
size = big[0].nbytes
assert size > 4 * left, f"{left} bytes of what was read are kept"
assert size < peak < 2.1 * size, f"{peak} bytes at once, of leaves of {size}"
print(len(jax.devices()), "devices: equal")
"""


@pytest.mark.slow
def test_any_sharding(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    result = subprocess.run([sys.executable, "-c", SHARDED], capture_output=True, text=True, check=False)
    assert result.stdout == "4 devices: equal\n", result.stderr[-2000:]
