"""A program for a process of its own: low-precision states over 8 host devices, to the bit as on one.

Run `python tests/sharded.py`, with the names of some transformations or for all; it prints what held, one line each.
"""

import os
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import adamx

INT8 = adamx.storage.Int8(block_size=32, min_size=0)
INT4 = adamx.storage.Int4(block_size=32, min_size=0)
TRANSFORMATIONS = {
    "bfloat16 and int8": (adamx.adam(1e-3, mu_dtype="bfloat16", nu_dtype=INT8), jnp.float32),
    "int4": (adamx.adam(1e-3, mu_dtype=INT4, nu_dtype=INT4), jnp.float32),
    "int4 and float32": (adamx.adamw(1e-3, mu_dtype=INT4, weight_decay=0.01), jnp.float32),
    "float8": (
        adamx.adamw(1e-3, mu_dtype="float8_e5m2", nu_dtype="float8_e4m3fn", weight_decay=0.01),
        jnp.float32,
    ),
    "precise, master weights": (adamx.with_master_weights(adamx.adam(1e-3, b2=0.999999, precise=True)), jnp.bfloat16),
    "24-bit master weights": (adamx.with_master_weights(adamx.adam(1e-3, nu_dtype="bfloat16"), bits=24), jnp.bfloat16),
    "stochastic rounding": (adamx.with_stochastic_rounding(adamx.adam(1e-3, nu_dtype="bfloat16")), jnp.bfloat16),
}
FUSED = {
    "fused int8": (adamx.adam, {"mu_dtype": INT8, "nu_dtype": INT8}),
    "fused bfloat16": (adamx.adamw, {"mu_dtype": "bfloat16", "nu_dtype": "bfloat16", "weight_decay": 0.01}),
    "fused float32": (adamx.adam, {}),
}
SPECS = {"rows": P("x", None), "both": P("x", "y"), "whole": P()}
MESH = jax.sharding.Mesh(np.array(jax.devices()).reshape(4, 2), ("x", "y"))


def tree(seed, dtype):
    random = np.random.default_rng(seed)
    return {name: jnp.asarray(random.standard_normal((64, 256)), dtype) for name in SPECS}


def placed(params):
    return {name: jax.device_put(x, NamedSharding(MESH, SPECS[name])) for name, x in params.items()}


def stepper(tx, **extra):
    def step(params, state, g):
        return adamx.step(tx, g, state, params, **extra)

    return step


def train(step, params, state, steps=5, place=lambda x: x):
    for t in range(steps):
        params, state = step(params, state, place(tree(t, params["rows"].dtype)))
    return params, state


def same(name, how, got, expected):
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(got)]
    for path, *pair in zip(paths, jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        a, b = (np.asarray(x).view(f"u{x.dtype.itemsize}") for x in pair)
        assert (a == b).all(), f"{name}, {how}: {path} differs in {(a != b).sum()} elements"


def in_shards(tx, dtype, **extra):
    """The step inside `shard_map`, told where each shard begins."""

    def inner(params, state, g):
        return stepper(tx, dither_offset=adamx.storage.shard_offsets(g, SPECS), **extra)(params, state, g)

    def spec_of(path, x):
        names = [str(getattr(key, "key", "")) for key in path]
        named = [SPECS[name] for name in names if name in SPECS]
        return named[0] if named else P()

    def specs(values):
        return jax.tree_util.tree_map_with_path(spec_of, values)

    params = tree(0, dtype)
    arguments = (params, jax.eval_shape(tx.init, params), params)
    shards = {"mesh": MESH, "in_specs": specs(arguments), "out_specs": specs(arguments[:2])}
    if hasattr(jax, "shard_map"):
        return jax.jit(jax.shard_map(inner, check_vma=False, **shards))
    from jax.experimental.shard_map import shard_map  # noqa: PLC0415 (jax 0.6.0)

    return jax.jit(shard_map(inner, check_rep=False, **shards))


def composed(name, tx, dtype):
    params = tree(100, dtype)
    expected = train(jax.jit(stepper(tx, backend="xla")), params, tx.init(params))
    sharded = placed(params)
    state = tx.init(sharded)
    for path, x in jax.tree_util.tree_leaves_with_path(state):
        if x.ndim and "rows" in jax.tree_util.keystr(path):
            assert x.sharding.spec[0] == "x", f"{name}: {jax.tree_util.keystr(path)} is placed as {x.sharding.spec}"
    same(name, "under jit", train(jax.jit(stepper(tx, backend="xla")), sharded, state, place=placed), expected)
    same(
        name,
        "in shard_map",
        train(in_shards(tx, dtype, backend="xla"), sharded, tx.init(sharded), place=placed),
        expected,
    )


def fused(name, build, arguments):
    by_kernel = build(1e-3, **arguments)
    params = tree(100, jnp.float32)
    sharded = placed(params)
    expected = train(jax.jit(stepper(by_kernel)), params, by_kernel.init(params))
    inside = train(in_shards(by_kernel, jnp.float32), sharded, by_kernel.init(sharded), place=placed)
    same(name, "in shard_map", inside, expected)
    step, start = jax.jit(stepper(by_kernel)), (sharded, by_kernel.init(sharded))
    program = step.lower(*start, sharded).compile().as_text()
    splits = "adamx_step" in program  # else XLA's own code runs, whose float32 sums may be contracted otherwise
    by_xla = train(jax.jit(stepper(by_kernel, backend="xla")), *start, place=placed)
    same(name, "under jit", train(step, *start, place=placed), expected if splits else by_xla)
    assert "all-gather" not in program, f"{name} gathers"
    assert splits <= jax.config.jax_use_shardy_partitioner, f"{name} calls the kernel on what it cannot see"


for name in sys.argv[1:] or [*TRANSFORMATIONS, *FUSED]:
    if name in FUSED:
        fused(name, *FUSED[name])
    else:
        composed(name, *TRANSFORMATIONS[name])
    print(name, "equal")
