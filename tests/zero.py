"""A program for a process of its own: states split over 8 host devices by `shard_state`, beside one device.

Run `python tests/zero.py NAME/KIND...`, "int8/Auto" say; without names it checks all.
"""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import functools
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import adamx
from adamx.kernels import layout
from adamx.trees import nbytes

layout.MANY = 0  # the kernel takes leaves however small, as in tests/kernels
jax.config.update("jax_cpu_enable_async_dispatch", False)  # or steps of 8 devices wait for each other's threads

INT8 = adamx.storage.Int8(block_size=32, min_size=1024)
CODED = {"mu_dtype": INT8, "nu_dtype": INT8}
DITHERED = {"mu_dtype": "bfloat16", "nu_dtype": "bfloat16"}
TRANSFORMATIONS = {
    "adam": adamx.adam(1e-3),
    "int8": adamx.adamw(1e-3, weight_decay=0.01, **CODED),
    "float16 codes": adamx.adam(1e-3, mu_dtype="bfloat16", nu_dtype="float16"),
    "master weights": adamx.with_master_weights(adamx.adam(1e-3, **DITHERED)),
    "24-bit master weights": adamx.with_master_weights(adamx.adam(1e-3, **DITHERED), bits=24),
    "stochastic rounding": adamx.with_stochastic_rounding(adamx.adam(1e-3, nu_dtype="bfloat16")),
    "amsgrad": adamx.amsgrad(1e-3),
    "averaged int8": adamx.with_ema(adamx.adam(1e-3), 0.9, 2, dtype=INT8),
    "averaged master weights": adamx.with_master_weights(adamx.with_ema(adamx.adam(1e-3), 0.99999)),
    "masked int8": adamx.adamw(1e-3, weight_decay=0.01, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p), **CODED),
    "clipped": adamx.chain(adamx.clip_by_global_norm(1e6), adamx.adamw(1e-3)),  # its sums are in another order
}
# The last axis of "wide" is split between blocks, "stack" in its middle axis, "odd" nowhere.
SHAPES = {"rows": (64, 256), "wide": (3, 512), "stack": (2, 16, 48), "odd": (5,)}
# XLA:CPU contracts a sum and a product in one loop and not in another: before jax 0.8 not the same ones here.
SAME_BITS = tuple(map(int, jax.__version__.split(".")[:2])) >= (0, 8)


def mesh_of(kind, shape=(8,), names=("data",)):
    return jax.sharding.Mesh(
        np.array(jax.devices()[: np.prod(shape)]).reshape(shape), names, axis_types=(kind,) * len(shape)
    )


def tree(seed, dtype=jnp.float32):
    random = np.random.default_rng(seed)
    return {name: jnp.asarray(random.standard_normal(shape), dtype) for name, shape in SHAPES.items()}


def whole(mesh, values):
    """Copies on every device, with the specs that JAX itself writes, so that what comes back is of the same type."""
    explicit = mesh.axis_types[0] == AxisType.Explicit
    return jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, P(*[None] * explicit * x.ndim))), values)


def jitted(tx):
    return jax.jit(lambda params, state, g: adamx.step(tx, g, state, params), donate_argnums=(0, 1))


def train(step, params, state, steps, place, dtype):
    for t in steps:
        params, state = step(params, state, place(tree(t, dtype)))
    return params, state


def differing(got, expected):
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(got)]
    pairs = zip(paths, jax.tree.leaves(got), jax.tree.leaves(expected), strict=True)
    return {path: int((np.asarray(a) != np.asarray(b)).sum()) for path, a, b in pairs if (np.asarray(a) != b).any()}


def collectives(program):
    """Kind and results, as text, of all that devices say to each other in a compiled program."""
    kinds = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|collective-broadcast"
    return re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", program)


def sizes(text):
    """Bytes of all array types in a text."""
    found = re.findall(r"\b(?:f|bf|s|u|pred)(\d*)\[([\d,]*)\]", text)
    return sum(int(bits or 8) // 8 * int(np.prod([int(n) for n in dims.split(",") if n])) for bits, dims in found)


def check(name, kind):
    """Bits, placement, bytes and collectives of one transformation."""
    tx, dtype = TRANSFORMATIONS[name], jnp.bfloat16 if "rounding" in name or "master" in name else jnp.float32
    mesh = mesh_of(kind)
    sharded = adamx.shard_state(tx, mesh)
    params, place = whole(mesh, tree(100, dtype)), functools.partial(whole, mesh)
    state = sharded.init(params)
    where = adamx.sharding.state_sharding(tx, params, mesh)
    assert where.whole.keys() == {"odd"}, where
    for x, sharding in zip(jax.tree.leaves(state), jax.tree.leaves(where.shardings), strict=True):
        assert x.sharding.is_equivalent_to(sharding, x.ndim), f"{x.sharding} instead of {sharding}"
    here = sum(nbytes(x.addressable_shards[0].data) for x in jax.tree.leaves(state))
    assert here == where.per_device, f"{here} bytes on a device, not {where.per_device}"
    assert 8 * (here - where.rest - where.whole["odd"]) == where.total - where.rest - where.whole["odd"]

    step = jitted(sharded).lower(params, state, params).compile()  # takes only what is placed as these are
    text, memory = step.as_text(), step.memory_analysis()
    moved = sorted(dims for result, _ in collectives(text) for dims in re.findall(r"\[([\d,]+)\]", result))
    split = [tuple(SHAPES[leaf]) for leaf in SHAPES if leaf != "odd"]
    of_arrays = {what for result, what in collectives(text) if re.search(r"\[\d", result)}
    assert of_arrays == {"all-gather"}, f"{name}: {collectives(text)}"
    assert len(moved) == len(split), f"{name} gathers {moved}, not once each of the parameters {split}"
    codes = {str(x.dtype).replace("int", "") for x in jax.tree.leaves(state) if x.ndim and x.dtype.itemsize == 1}
    assert not [c for c in codes if f"{c}[64,256]" in text], f"{name}: whole codes on a device"
    largest = 4 * int(np.prod(SHAPES["rows"]))
    assert dtype != jnp.float32 or memory.temp_size_in_bytes < largest, f"{name}: {memory.temp_size_in_bytes} on top"
    assert memory.alias_size_in_bytes >= here, f"{name}: the state is not written in place"
    native = "native" in {leaf.executor for leaf in adamx.explain(tx, tree(100, dtype)).leaves}
    assert ("adamx_step" in text) == native, f"{name}: the kernel is {'not ' * native}called"

    expected = tree(100, dtype)
    expected = train(jitted(tx), expected, tx.init(expected), range(4), lambda g: g, dtype)
    got = train(step, params, state, range(4), place, dtype)
    assert all(x.sharding.is_fully_replicated for x in got[0].values()), f"{name}: {got[0]['rows'].sharding}"
    for x, sharding in zip(jax.tree.leaves(got[1]), jax.tree.leaves(where.shardings), strict=True):
        assert x.sharding.is_equivalent_to(sharding, x.ndim), f"{name} moves {sharding} to {x.sharding}"
    if SAME_BITS:
        assert not differing(got, expected), f"{name}: {differing(got, expected)}"
    print(f"{name} on {kind.name} axes: ok, {memory.temp_size_in_bytes} bytes on top")


def check_norms(kind):
    """Norms around and inside of what splits the state are those of one device, and gather no more than the step."""
    mesh, dtype = mesh_of(kind), jnp.float32
    inner = adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adamw(1e-3, **DITHERED))
    for measure in (adamx.with_norms, lambda tx: adamx.with_norms(adamx.chain(optax.clip(0.5), tx))):
        alone = measure(inner)
        expected = tree(100, dtype)
        expected = train(jitted(alone), expected, alone.init(expected), range(2), lambda g: g, dtype)[1]
        for sharded in (measure(adamx.shard_state(inner, mesh)), adamx.shard_state(measure(inner), mesh)):
            params = whole(mesh, tree(100, dtype))
            got = train(jitted(sharded), params, sharded.init(params), range(2), functools.partial(whole, mesh), dtype)[
                1
            ]
            for name, x in adamx.metrics.read_norms(expected).items():
                np.testing.assert_allclose(adamx.metrics.read_norms(got)[name], x, rtol=1e-5, err_msg=name)
    print(f"norms on {kind.name} axes: ok")


if __name__ == "__main__":
    if sys.argv[1:2] == ["norms"]:
        check_norms(AxisType[sys.argv[2]])
        sys.exit()
    for given in sys.argv[1:] or [f"{name}/{kind}" for name in TRANSFORMATIONS for kind in ("Auto", "Explicit")]:
        check(given.split("/")[0], AxisType[given.split("/")[1]])
