"""A program for one of several processes: each keeps the state of what its two devices hold, and steps it on its host.

Run `python tests/host_processes.py COUNT INDEX PORT NAME...` for each INDEX below COUNT; they talk over loopback, by
gloo. Without names it checks all.
"""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=3"

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import adamx  # before initialize, which an import that starts a backend would make impossible
from adamx.streaming import groups

COUNT, INDEX, PORT = map(int, sys.argv[1:4])
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{PORT}", COUNT, INDEX, initialization_timeout=60)

groups.GROUP = 2**13
HOST = jax.local_devices()[0]
FAR = [[d for d in jax.devices() if d.process_index == i][1:] for i in range(COUNT)]
MESH = Mesh(np.array(FAR), ("data", "model"))
SHAPES = {"bias": (512,), "kernel": (32, 512), "other": (16, 48), "scale": ()}  # half of "other" is less than TINY
SPECS = {  # how kernel, other and bias are placed; scale is on all devices
    "fsdp": (P(("data", "model")), P(None, ("data", "model")), P(("data", "model"))),
    "split over processes": (P("data"), P(None, "data"), P("data")),
    "split within": (P(None, "model"), P("model"), P("model")),
    "both": (P("model", "data"), P("data", "model"), P()),
}


def over_mean(gradients, _):
    """Gradients over the mean of their squares in each leaf: a sum over shards, and a number from sizes."""
    return jax.tree.map(lambda g: g / jnp.mean(g * g), gradients)


CLIP, ADAMW = adamx.clip_by_global_norm(1.0), adamx.adamw(0.1, mask=adamx.not_matching("bias"))
INT8 = adamx.storage.Int8(8, 0)
TRANSFORMATIONS = {  # the optimizer, and the dtype of parameters
    "guarded": (adamx.skip_nonfinite(adamx.chain(CLIP, ADAMW)), "float32"),
    "masters": (adamx.with_master_weights(adamx.chain(CLIP, ADAMW)), "bfloat16"),
    "stochastic rounding": (adamx.with_stochastic_rounding(adamx.adam(0.1)), "bfloat16"),
    "dithered": (adamx.adam(0.1, mu_dtype="bfloat16", nu_dtype="bfloat16"), "float32"),
    "int8": (adamx.adam(0.1, mu_dtype=INT8, nu_dtype=INT8), "float32"),
    "spikes": (adamx.skip_spikes(adamx.adam(0.1), window=4), "float32"),
    "averages": (adamx.skip_nonfinite(adamx.with_ema(adamx.chain(CLIP, ADAMW), 0.9, dtype="bfloat16")), "float32"),
    "routes": (adamx.route({"kernel": adamx.adam(0.1), "scale": None}, default=adamx.nadam(0.1)), "float32"),
    "microbatches": (adamx.chain(CLIP, adamx.accumulate(ADAMW, 2, "bfloat16")), "float32"),
    "means": (optax.chain(optax.stateless(over_mean), optax.adam(0.1)), "float32"),
}
CASES = [
    *[f"{name}/{place}" for name in ("guarded", "averages") for place in SPECS],
    *[f"{name}/{place}" for name in list(TRANSFORMATIONS)[1:] if name != "averages" for place in ("fsdp", "both")],
]


def tree(seed, dtype="float32"):
    """Integers over 8: their squares add up exactly in any order."""
    random = np.random.default_rng(seed)
    return {name: np.asarray(random.integers(-8, 9, shape) / 8).astype(dtype) for name, shape in SHAPES.items()}


def shardings(place, mesh=MESH):
    kernel, other, bias = SPECS[place]
    specs = {"kernel": kernel, "other": other, "bias": bias, "scale": P()}
    return {name: NamedSharding(mesh, spec) for name, spec in specs.items()}


def placed(tree, where):
    """Arrays over all processes, of which each makes its own shards."""
    return {name: jax.make_array_from_callback(x.shape, where[name], x.__getitem__) for name, x in tree.items()}


def own(x, shape):
    """What this process has of a whole array: the part of its number, where an axis is split."""
    return x[
        tuple(slice(INDEX * n, INDEX * n + n) if n < full else slice(n) for n, full in zip(shape, x.shape, strict=True))
    ]


def compare(what, got, expected):
    whole = map(np.asarray, jax.tree.leaves(expected))
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(got), whole, strict=True):
        pairs = [(s.data, y[s.index]) for s in x.addressable_shards] if x.shape == y.shape else [(x, own(y, x.shape))]
        for a, b in pairs:
            assert a.dtype == b.dtype
            same = np.asarray(a).tobytes() == b.tobytes()
            assert same, f"{what}: {jax.tree_util.keystr(path)} differs, {np.sum(np.asarray(a) != b)} of {b.size}"


def check(name):
    """Bits and places after four steps, the third with a NaN in one shard where there is a guard."""
    case, _, place = name.partition("/")
    (plain, dtype), where = TRANSFORMATIONS[case], shardings(place)
    tx, step = adamx.on_host(plain), jax.jit(lambda params, state, g: adamx.step(plain, g, state, params))
    params, expected = placed(tree(0, dtype), where), jax.device_put(tree(0, dtype), HOST)
    state, reference = tx.init(params), plain.init(expected)
    for t in range(4):
        gradients = tree(t + 1, dtype)
        if t == 2 and case in ("guarded", "averages", "spikes"):
            gradients["kernel"][3, 300] = np.nan
        params, state = adamx.step(tx, placed(gradients, where), state, params)
        expected, reference = step(expected, reference, jax.device_put(gradients, HOST))
        state = jax.tree.map(np.asarray, state) if t == 1 else state  # from a checkpoint
    assert int(getattr(state, "skipped", 1)) == 1
    compare(name, (params, state), (expected, reference))
    assert all(x.sharding == where[leaf] for leaf, x in params.items())
    assert all(x.devices() == {HOST} for x in jax.tree.leaves(state))


def check_places():
    """Gradients whole in each process; templates and readers of a split state."""
    tx, where = adamx.on_host(adamx.with_ema(adamx.adam(0.1), 0.9)), shardings("fsdp")
    params = placed(tree(0), where)
    state, local = tx.init(params), {name: where[name].spec for name in SHAPES}
    structs = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=p.sharding), params)
    for template in (
        jax.eval_shape(lambda: tx.init(params)),
        jax.eval_shape(lambda: tx.init(structs)),
        tx.init(structs),
    ):
        assert jax.tree.map(jnp.shape, template) == jax.tree.map(jnp.shape, state)
    assert adamx.explain(tx, params).one_pass
    gradients = placed(tree(1), {name: NamedSharding(MESH, P()) for name in SHAPES})
    params, state = adamx.step(tx, gradients, state, params)
    here = jax.device_get(multihost_utils.global_array_to_host_local_array(params, MESH, local))
    for mean, p in zip(*map(jax.tree.leaves, (adamx.ema_params(state, here), here)), strict=True):
        np.testing.assert_allclose(mean, p, rtol=1e-6)  # after one step
    plain = adamx.adam(0.1)
    expected, _ = jax.jit(lambda p, g: adamx.step(plain, g, plain.init(p), p))(tree(0), tree(1))
    compare("places", params, expected)


def refused(match, f, error=ValueError):
    try:
        f()
        found = "nothing was raised"
    except error as raised:
        found = str(raised)
    assert match in found, found


def check_refusals():
    """What shards do not allow, told before anything is computed."""
    where, plain = shardings("fsdp"), adamx.adam(0.1)
    params, tx = placed(tree(0), where), adamx.on_host(plain, donate=False)
    state, gradients = tx.init(params), placed(tree(1), where)
    turns = Mesh(np.array(FAR).T, ("data", "model"))
    there = placed(tree(0), shardings("fsdp", turns))
    refused("of an array, adamx.on_host needs that they form one box", lambda: tx.init(there))
    refused("bias: this process has the shards [", lambda: tx.init(there))
    whole = placed(tree(0), {name: NamedSharding(MESH, P()) for name in SHAPES})
    refused("of the parameter at bias, but of its gradient only [", lambda: adamx.step(tx, gradients, state, whole))
    refused("call adamx.step", lambda: tx.update(gradients, state, params))
    refused(
        "not that of the elements", lambda: adamx.step(tx, gradients, jax.device_put(plain.init(tree(0)), HOST), params)
    )
    coded = [adamx.adam(0.1, nu_dtype=adamx.storage.Int8(*sizes)) for sizes in ((32, 0), (8, 10_000))]
    refused("blocks of 32 neighbours, but ('processes',)", lambda: adamx.on_host(coded[0]).init(params))
    refused("too little of a leaf", lambda: adamx.on_host(coded[1]).init(params))
    mixing = (
        adamx.accumulate(adamx.chain(CLIP, ADAMW), 2),
        adamx.with_norms(plain),
        adamx.with_ema(plain, 0.9, dtype=INT8),
        adamx.accumulate(plain, 2, INT8),
        adamx.mars(0.1),
        optax.lamb(0.1),
        optax.adafactor(0.1, min_dim_size_to_factor=16),
        optax.contrib.muon(0.1),
        optax.chain(optax.add_noise(0.1, 0.1, 0), optax.adam(0.1)),
    )
    for inner in mixing:
        offloaded = adamx.on_host(inner, donate=False)
        state = offloaded.init(params)
        refused("mixes elements of a leaf", lambda t=offloaded, s=state: adamx.step(t, gradients, s, params))


OTHERS = {name.removeprefix("check_"): f for name, f in list(globals().items()) if name.startswith("check_")}


def main():
    """Runs the checks that the command line asks for."""
    assert jax.process_count() == COUNT
    for name in sys.argv[4:] or [*CASES, *OTHERS]:
        OTHERS.get(name, lambda name=name: check(name))()
        print(f"{name}: ok", flush=True)


if __name__ == "__main__":
    main()
