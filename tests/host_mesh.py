"""A program for a process of its own: states on one host device, parameters on a mesh of eight, beside the jitted step.

Run `python tests/host_mesh.py NAME...`, "adamw/Auto" say, or "places"; without names it checks all.
"""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=9"

import gc
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import adamx
from adamx.streaming import groups, shards

groups.GROUP = 2**13
HOST, *FAR = jax.devices()
LEAVES = {  # shapes and specs: split by rows, by columns, by both, over all devices, and not at all
    "rows": ((64, 256), P("data")),
    "columns": ((48, 128), P(None, "model")),
    "both": ((32, 96), P("data", "model")),
    "full": ((512, 24), P(("data", "model"))),
    "whole": ((100, 33), P()),
    "scalar": ((), P()),
}
INT8 = adamx.storage.Int8(64, 0)  # "columns" has shards of 64 columns, "both" cuts its blocks
CLIP = adamx.clip_by_global_norm(1.0)
TRANSFORMATIONS = {  # the optimizer and the dtype of parameters
    "adamw": (adamx.adamw(0.01, weight_decay=0.1, mask=adamx.not_matching("full")), "float32"),
    "clipped": (adamx.chain(CLIP, adamx.adamw(0.01)), "float32"),
    "guarded masters": (
        adamx.skip_nonfinite(adamx.with_master_weights(adamx.chain(CLIP, adamx.adamw(0.01)))),
        "bfloat16",
    ),
    "spikes": (adamx.skip_spikes(adamx.adam(0.01), window=4), "float32"),
    "stochastic rounding": (adamx.with_stochastic_rounding(adamx.adam(0.01)), "bfloat16"),
    "int8": (adamx.adam(0.01, mu_dtype=INT8, nu_dtype=INT8), "float32"),
    "dithered": (adamx.adam(0.01, mu_dtype="bfloat16", nu_dtype="bfloat16"), "float32"),
    "optax": (optax.adam(0.01), "float32"),
}
KINDS = {"Auto": AxisType.Auto, "Explicit": AxisType.Explicit}


def mesh(kind="Auto", shape=(4, 2), devices=FAR):
    axes = ("data", "model")[: len(shape)]
    return jax.sharding.Mesh(np.array(devices).reshape(shape), axes, axis_types=(KINDS[kind],) * len(shape))


def tree(seed, dtype="float32"):
    """Integers over 8: their squares add up exactly in any order."""
    random = np.random.default_rng(seed)
    return {name: (random.integers(-16, 17, shape) / 8).astype(jnp.dtype(dtype)) for name, (shape, _) in LEAVES.items()}


def placed(tree, on):
    return {name: jax.device_put(x, NamedSharding(on, LEAVES[name][1])) for name, x in tree.items()}


def compare(what, got, expected):
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes(), f"{what}: {jax.tree_util.keystr(path)} differs"


def check(name):
    """Bits and places after four steps, the second with a NaN in one shard where there is a guard."""
    case, _, kind = name.partition("/")
    (tx, dtype), on = TRANSFORMATIONS[case], mesh(kind)
    offloaded = adamx.on_host(tx)
    step = jax.jit(lambda params, state, g: adamx.step(tx, g, state, params), donate_argnums=(0, 1))
    params, expected = placed(tree(0, dtype), on), jax.device_put(tree(0, dtype), HOST)
    state, reference = offloaded.init(params), tx.init(expected)
    for t in range(4):
        gradients = tree(t + 1, dtype)
        if t == 1 and case in ("guarded masters", "spikes"):
            gradients["both"][20, 90] = np.nan
        gradients = jax.tree.map(lambda g, t=t: g * (4 if t == 3 else 1), gradients)  # the last ones are a spike
        params, state = adamx.step(offloaded, placed(gradients, on), state, params)
        expected, reference = step(expected, reference, jax.device_put(gradients, HOST))
    compare(name, (params, state), (expected, reference))
    skipped = {"guarded masters": 1, "spikes": 2}.get(case, 0)
    assert int(getattr(state, "skipped", 0)) == skipped, f"{name}: {state.skipped} steps were skipped"
    assert all(x.sharding == NamedSharding(on, LEAVES[leaf][1]) for leaf, x in params.items())
    assert all(x.devices() == {HOST} for x in jax.tree.leaves(state))


def check_update():
    """Updates go where gradients are."""
    tx, on = adamx.on_host(adamx.adam(0.1)), mesh()
    params, gradients = placed(tree(0), on), placed(tree(1), on)
    updates, _ = tx.update(gradients, tx.init(params), params)
    expected, _ = jax.jit(adamx.adam(0.1).update)(tree(1), adamx.adam(0.1).init(tree(0)), tree(0))
    compare("update", updates, expected)
    assert all(x.sharding == gradients[name].sharding for name, x in updates.items())


def check_places():
    """Gradients that are placed otherwise than parameters, on other meshes, or on one device; a mesh with the host."""
    tx = adamx.chain(CLIP, adamx.adamw(0.01))
    expected, reference = jax.device_put(tree(0), HOST), tx.init(jax.device_put(tree(0), HOST))
    step = jax.jit(lambda params, state, g: adamx.step(tx, g, state, params))
    expected, _ = step(expected, reference, jax.device_put(tree(1), HOST))
    offloaded, own = adamx.on_host(tx), mesh()
    flat, with_host = mesh("Explicit", (8,)), mesh(devices=jax.devices()[:8])
    whole = {name: NamedSharding(flat, P()) for name in LEAVES}
    rows = {
        name: NamedSharding(flat, P("data") if shape and shape[0] % 8 == 0 else P())
        for name, (shape, _) in LEAVES.items()
    }
    mixed = {name: FAR[i % 2] for i, name in enumerate(LEAVES)}
    other = {name: NamedSharding(with_host, spec) for name, (_, spec) in LEAVES.items()}
    for gradients in (whole, rows, mixed, other, FAR[3], {**rows, "rows": other["rows"]}):
        for places in (placed(tree(0), own), jax.device_put(tree(0), other), jax.device_put(tree(0), FAR[0])):
            state, before = offloaded.init(places), jax.tree.map(lambda p: p.sharding, places)
            params, _ = adamx.step(offloaded, jax.device_put(tree(1), gradients), state, places)
            compare("places", params, expected)
            assert jax.tree.map(lambda p: p.sharding, params) == before
    split, alone = list(placed(tree(0), own).values()), [jax.device_put(np.ones(2), device) for device in FAR[:2]]
    assert shards.common_devices(split, HOST) == tuple(FAR)
    assert shards.common_devices(alone, HOST) == shards.common_devices([*split, alone[0]], HOST) == (HOST,)


def held(device):
    gc.collect()
    arrays = [s.data for x in jax.live_arrays() if not x.is_deleted() for s in x.addressable_shards]
    return sum({x.unsafe_buffer_pointer(): x.nbytes for x in arrays if x.devices() == {device}}.values())


def check_bytes():
    """Each device holds its shards of parameters and gradients and nothing else; the host holds one copy of all."""
    tx, on = adamx.on_host(adamx.chain(CLIP, adamx.adam(0.01))), mesh("Explicit")
    params = placed(tree(0), on)
    size, here = sum(x.nbytes for x in params.values()), held(FAR[5])
    state = tx.init(params)
    for t in range(3):
        gradients = placed(tree(t + 1), on)
        params, state = adamx.step(tx, gradients, state, params)
        assert all(x._npy_value is None for x in jax.tree.leaves((gradients, params, state)))
    assert held(FAR[5]) == 2 * here, f"{held(FAR[5])} bytes on a device of {here} of parameters"
    assert held(HOST) <= 3 * size + 200, f"{held(HOST)} bytes on the host: moments and a copy are {3 * size}"


def check_in_place():
    """State and copies of parameters are written in place from the second step on: no shard holds their memory."""
    tx, on = adamx.on_host(adamx.adam(0.01)), mesh()
    params = placed(tree(0), on)
    params, state = adamx.step(tx, placed(tree(1), on), tx.init(params), params)
    places = {x.unsafe_buffer_pointer() for x in jax.tree.leaves(state) if x.ndim}
    for t in range(2):
        params, state = adamx.step(tx, placed(tree(t), on), state, params)
        assert {x.unsafe_buffer_pointer() for x in jax.tree.leaves(state) if x.ndim} == places
    for spec in (P("data"), P("data", "model"), P(("data", "model")), P()):
        x = jnp.zeros((64, 64)) + 1
        place = x.unsafe_buffer_pointer()
        place_of = jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(on, spec))
        (far,) = shards.to_shards([x], [place_of])
        assert jax.jit(lambda x: x + 1, donate_argnums=0)(x).unsafe_buffer_pointer() == place
        assert (np.asarray(far) == 1).all()


def check_templates():
    """The template of a checkpoint, and a mesh that is set for the whole program."""
    tx, on = adamx.on_host(adamx.adam(0.01)), mesh("Explicit")
    params = placed(tree(0), on)
    state = tx.init(params)
    for template in (jax.eval_shape(lambda: tx.init(params)), jax.eval_shape(tx.init, params)):
        assert jax.tree.map(jnp.shape, template) == jax.tree.map(jnp.shape, state)
        assert all(x.sharding is None for x in jax.tree.leaves(template))
    structs = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=p.sharding), params)
    compare("templates", tx.init(structs), state)
    assert all(x.devices() == {HOST} for x in jax.tree.leaves(tx.init(structs)))
    with jax.set_mesh(on) if hasattr(jax, "set_mesh") else jax.sharding.use_mesh(on):
        again, _ = adamx.step(tx, placed(tree(1), on), tx.init(params), placed(tree(0), on))
    expected, _ = adamx.step(tx, placed(tree(1), on), state, params)
    compare("a mesh that is set", again, expected)


OTHERS = {name.removeprefix("check_").replace("_", " "): f for name, f in list(globals().items()) if "check_" in name}


def main():
    """Runs the checks that the command line asks for."""
    cases = [f"{name}/{kind}" for name in TRANSFORMATIONS for kind in KINDS]
    for name in sys.argv[1:] or [*cases, *OTHERS]:
        OTHERS.get(name, lambda name=name: check(name))()
        print(f"{name}: ok")


if __name__ == "__main__":
    main()
