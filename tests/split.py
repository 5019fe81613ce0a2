"""A program for a process of its own: steps on sharded arrays under plain `jit`, on 8 host devices, beside one device.

Run `python tests/split.py NAME/PLACING...`, "int8/rows" say; without names it checks all.
"""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import itertools
import re
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import adamx
from adamx.kernels import layout

layout.MANY = 0  # the kernel takes leaves however small, as in tests/kernels
jax.config.update("jax_cpu_enable_async_dispatch", False)  # or steps of 8 devices wait for each other's threads

INT8 = adamx.storage.Int8(block_size=32, min_size=0)
CODED = {"mu_dtype": INT8, "nu_dtype": INT8}
DITHERED = {"mu_dtype": "bfloat16", "nu_dtype": "bfloat16"}
SCHEDULE = optax.cosine_decay_schedule(1e-3, 100)
MATRICES = lambda p: jax.tree.map(lambda x: x.ndim > 1, p)
TRANSFORMATIONS = {
    "adam": (adamx.adam(1e-3), "float32"),
    "bfloat16": (adamx.adamw(SCHEDULE, mask=MATRICES, **DITHERED), "float32"),
    "int8": (adamx.adamw(1e-3, weight_decay=0.01, **CODED), "float32"),
    "float32 m, int8 v": (adamx.nadamw(1e-3, nu_dtype=INT8), "bfloat16"),
    "master weights, int8": (adamx.with_master_weights(adamx.adam(1e-3, **CODED)), "bfloat16"),
    "stochastic rounding": (adamx.with_stochastic_rounding(adamx.adam(1e-3, **DITHERED)), "bfloat16"),
    "guarded int8": (adamx.skip_nonfinite(adamx.adamw(1e-3, **CODED)), "float32"),
    "norms": (adamx.with_norms(adamx.adam(1e-3, **DITHERED), "rows"), "float32"),
    "groups": (adamx.chain(adamx.adamw(SCHEDULE), adamx.scale_by_path({"rows": 0.5})), "float32"),
}
SHAPES = {"rows": (64, 256), "wide": (4, 512), "stack": (2, 16, 64), "bias": (512,), "scale": ()}
MESHES = {"all": ((8,), ("data",)), "2x4": ((2, 4), ("data", "model"))}
# The mesh, and the specs of parameters and of moments.
PLACINGS = {
    "rows": ("all", {"rows": P("data"), "wide": P(None, "data"), "stack": P(None, "data"), "bias": P("data")}, None),
    "tensor parallel": ("2x4", {"rows": P("model"), "wide": P(None, "model"), "stack": P("data", "model")}, None),
    "both": ("2x4", {"rows": P("data", "model"), "wide": P("model", "data"), "bias": P(("data", "model"))}, None),
    "moments alone": ("all", {}, {"rows": P("data"), "wide": P(None, "data"), "bias": P("data")}),
}


def tree(seed, dtype):
    random = np.random.default_rng(seed)
    return {name: jnp.asarray(random.standard_normal(shape), dtype) for name, shape in SHAPES.items()}


def placed(mesh, specs, params):
    def put(path, x):
        name = next((k.key for k in path if getattr(k, "key", None) in SHAPES), None)
        spec = specs.get(name, P()) if x.ndim else P()
        return jax.device_put(x, NamedSharding(mesh, spec))

    return jax.tree_util.tree_map_with_path(put, params)


def differing(got, expected):
    pairs = zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected), strict=True)
    return [jax.tree_util.keystr(path) for (path, a), b in pairs if not same(path, np.asarray(a), np.asarray(b))]


def same(path, a, b):
    """Equal to the bit; norms, whose sums over shards are in another order, nearly."""
    measured = any(getattr(key, "name", None) in ("gradients", "updates", "params") for key in path)
    return np.allclose(a, b, rtol=1e-6, atol=0) if measured else (a == b).all()


def check(name, placing):
    """Bits, calls, collectives and temporaries of a step under plain jit."""
    tx, dtype = TRANSFORMATIONS[name]
    which, of_params, of_moments = PLACINGS[placing]
    shape, names = MESHES[which]
    mesh = Mesh(np.array(jax.devices()).reshape(shape), names, axis_types=(AxisType.Auto,) * len(shape))
    step = jax.jit(lambda params, state, g: adamx.step(tx, g, state, params))
    expected = tree(100, dtype), tx.init(tree(100, dtype))
    got = placed(mesh, of_params, expected[0]), placed(mesh, of_moments or of_params, expected[1])
    gradients = [(g, placed(mesh, of_params, g)) for g in (tree(t, dtype) for t in range(3))]

    compiled = step.lower(*got, gradients[0][1]).compile()
    text, temporary = compiled.as_text(), compiled.memory_analysis().temp_size_in_bytes
    native = adamx.kernels.backend().name == "native"
    assert ("adamx_step" in text) == native, f"{name}: the kernel is {'not ' * native}called"
    gathers = re.findall(r"= (\S+) all-gather", text)
    if of_moments is None:
        assert not gathers, f"{name}: {gathers}"
    assert not any(re.match(r"(s8|u8|bf16)\[", x) and dtype != "bfloat16" for x in gathers), f"moments in {gathers}"
    assert not re.search(r"all-to-all|collective-permute", text), f"{name}: arrays move between devices"
    assert temporary < 64 * 256 * 4, f"{name}: {temporary} bytes on top"

    for whole, split in gradients:
        expected, got = step(*expected, whole), step(*got, split)
    assert not differing(got, expected), f"{name}: {differing(got, expected)}"
    for before, after in zip(
        jax.tree.leaves(placed(mesh, of_params, tree(0, dtype))), jax.tree.leaves(got[0]), strict=True
    ):
        same = of_moments is not None or after.sharding.is_equivalent_to(before.sharding, after.ndim)
        assert same, f"{name} moves {before.sharding} to {after.sharding}"
    print(f"{name}/{placing}: ok, {temporary} bytes on top")


def check_cut():
    """Blocks that a sharding cuts: right, and with a word."""
    mesh, tx = Mesh(np.array(jax.devices()), ("data",)), adamx.adam(1e-3, **CODED)
    whole = jnp.asarray(np.random.default_rng(0).standard_normal((4, 128)), jnp.float32)
    split = jax.device_put(whole, NamedSharding(mesh, P(None, "data")))
    step = jax.jit(lambda p, s, g: adamx.step(tx, g, s, p))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        got = step(split, tx.init(whole), split)
    words = [str(one.message) for one in seen if "shard_state" in str(one.message)]
    assert len(words) == (adamx.kernels.backend().name == "native"), words
    assert not differing(got, step(whole, tx.init(whole), whole))
    print("cut: ok")


if __name__ == "__main__":
    every = ["/".join(one) for one in itertools.product(TRANSFORMATIONS, PLACINGS)]
    for given in sys.argv[1:] or [*every, "cut"]:
        check_cut() if given == "cut" else check(*given.split("/"))
