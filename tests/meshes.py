"""A program for a process of its own: every optimizer, storage and wrapper on meshes of 8 host devices.

`python tests/meshes.py KIND/NAME...`: "explicit/int8" say, kinds alone, or none for all; prints a line for what held.
"""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import contextlib
import functools
import sys

import family
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import adamx
from adamx.core.step import Update
from adamx.kernels import layout

layout.MANY = 0  # the kernel takes leaves however small, as in tests/kernels
jax.config.update("jax_cpu_enable_async_dispatch", False)  # or steps of 8 devices wait for each other's threads

INT8, INT4 = (codec(block_size=32, min_size=0) for codec in (adamx.storage.Int8, adamx.storage.Int4))
FLOAT8 = adamx.storage.Float("float8_e4m3fn")
STORAGES = {
    **{name: {"mu_dtype": codec, "nu_dtype": codec} for name, codec in {"int8": INT8, "int4": INT4}.items()},
    "float8": {"mu_dtype": FLOAT8, "nu_dtype": "float8_e5m2"},
    "float16": {"mu_dtype": "bfloat16", "nu_dtype": "float16"},
    "bfloat16": {"mu_dtype": "bfloat16", "nu_dtype": "bfloat16"},
}


def probed(rate, **storages):
    return optax.chain(
        adamx.scale_by_moments(**storages),
        adamx.diagnostics.probe(rate, every=1),
        adamx.bias_correction(),
        adamx.scale_by_lr(rate),
    )


WRAPPERS = {
    "guard": lambda: adamx.skip_nonfinite(adamx.adamw(1e-3)),
    "accumulated": lambda: adamx.accumulate(adamx.adamw(1e-3), 2, "bfloat16"),
    "routed": lambda: adamx.route({".": adamx.adamw(1e-3, **STORAGES["int8"])}),
    "guarded int8": lambda: adamx.skip_nonfinite(adamx.adamw(1e-3, **STORAGES["int8"])),
    "guarded from spikes": lambda: adamx.skip_spikes(adamx.adamw(1e-3)),
    "probe": lambda: probed(1e-3),
    "probed int8": lambda: probed(1e-3, **STORAGES["int8"]),
    "master weights": lambda: adamx.with_master_weights(adamx.adamw(1e-3)),
    "master weights, int8": lambda: adamx.with_master_weights(adamx.adamw(1e-3, **STORAGES["int8"])),
    "24-bit master weights": lambda: adamx.with_master_weights(adamx.adamw(1e-3), bits=24),
    "stochastic rounding": lambda: adamx.with_stochastic_rounding(adamx.adamw(1e-3, **STORAGES["bfloat16"])),
    "guarded master weights": lambda: adamx.skip_nonfinite(adamx.with_master_weights(adamx.stable_adamw(1e-3))),
    "precise": lambda: adamx.adam(1e-3, b2=0.999999, precise=True),
    "adamax, int8": lambda: adamx.adamax(1e-3, nu_dtype=STORAGES["int8"]["nu_dtype"]),  # an int8 m goes with no u
    "averaged, int8": lambda: adamx.with_ema(adamx.adamw(1e-3), 0.9, 2, dtype=INT8),
    "averaged master weights": lambda: adamx.with_ema(adamx.with_master_weights(adamx.adamw(1e-3)), 0.9),
    "measured": lambda: adamx.with_norms(adamx.skip_nonfinite(adamx.adamw(1e-3, **STORAGES["int8"])), "odd|both"),
    "fused": lambda: adamx.adamw(1e-3),
    "fused int8": lambda: adamx.adamw(1e-3, **STORAGES["int8"]),
    "fused, master weights": lambda: adamx.with_master_weights(adamx.adamw(1e-3, **STORAGES["bfloat16"])),
    "fused, stochastic rounding": lambda: adamx.with_stochastic_rounding(adamx.adam(1e-3)),
}
TRANSFORMATIONS = {
    **{name: (lambda entry=entry: entry.make(1e-3)) for name, entry in family.FAMILY.items()},
    **{name: (lambda kept=kept: adamx.adamw(1e-3, **kept)) for name, kept in STORAGES.items()},
    **WRAPPERS,
}
SPECS = {"odd": P("x", None), "blocks": P(None, "y"), "bias": P("x"), "both": P("x", "y"), "whole": P(None, None)}
SHAPES = {"odd": (8, 80), "blocks": (3, 256), "bias": (512,), "both": (8, 128), "whole": (4, 33)}


def mesh_of(kind):
    return jax.sharding.Mesh(np.array(jax.devices()).reshape(4, 2), ("x", "y"), axis_types=(kind,) * 2)


def dtype_of(name):
    return jnp.bfloat16 if "weights" in name or "rounding" in name else jnp.float32


def tree(seed, dtype):
    random = np.random.default_rng(seed)
    return {name: jnp.asarray(random.standard_normal(shape), dtype) for name, shape in SHAPES.items()}


def placed(mesh, values):
    return {name: jax.device_put(x, NamedSharding(mesh, SPECS[name])) for name, x in values.items()}


def entered(mesh):
    enter = getattr(jax, "set_mesh", None) or jax.sharding.use_mesh  # jax 0.6
    return enter(mesh)


def specs_of(values):
    """The spec of each array of parameters, gradients or state, by the name in its path; scales have an axis more."""

    def spec(path, x):
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey) and key.key in SPECS]
        return SPECS[names[0]] if names and np.ndim(x) >= len(SHAPES[names[0]]) else P()

    return jax.tree_util.tree_map_with_path(spec, values)


def stepper(tx, way, **extra):
    def by_update(params, state, g):
        updates, state = optax.with_extra_args_support(tx).update(g, state, params, **extra)
        return optax.apply_updates(params, updates), state

    def by_step(params, state, g):
        return adamx.step(tx, g, state, params, **extra)

    return by_step if way == "step" else by_update


def scanned(step, params, state, gradients):
    def body(carry, g):
        return step(*carry, g), None

    return jax.lax.scan(body, (params, state), gradients)[0]


def streams(dtype, place=lambda x: x):
    rows = [place(tree(t, dtype)) for t in range(3)]
    return jax.tree.map(lambda *x: jnp.stack(x), *rows)


def apart(got, expected, ulps):
    """The leaves that differ by more than some units in the last place of their largest element.

    A remainder is the last bits of a weight: it counts in units of those, and goes round.
    """
    found = {}
    pairs = zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected), strict=True)
    for (path, x), y in pairs:
        if x.dtype == jnp.uint16:
            if not (np.abs((np.asarray(x) - np.asarray(y)).astype(np.int16).astype(np.int32)) <= ulps).all():
                found[jax.tree_util.keystr(path)] = "a remainder"
            continue
        a, b = (np.asarray(jnp.asarray(of, jnp.float32)) for of in (x, y))
        bound = ulps * 2.0**-23 * np.max(np.abs(b), initial=0)
        if not np.all((np.abs(a - b) <= bound) | (np.isnan(a) & np.isnan(b))):
            found[jax.tree_util.keystr(path)] = (np.nanmax(np.abs(a - b)), bound)
    return found


def ways(tx):
    """How a step is taken: `adamx.step` is `update` for a transformation that says nothing more."""
    return ("step", "update") if isinstance(tx.update, Update) else ("update",)


@functools.cache
def alone(name, way):
    """Parameters and state after three steps on one device."""
    tx, dtype = TRANSFORMATIONS[name](), dtype_of(name)
    params = tree(100, dtype)
    return jax.jit(lambda *given: scanned(stepper(tx, way), *given))(params, tx.init(params), streams(dtype))


@contextlib.contextmanager
def raised(kind, *words):
    """Expects an error with these words."""
    try:
        yield
    except kind as error:
        found = str(error)
    else:
        found = "nothing was raised"
    missing = [word for word in words if word not in found]
    assert not missing, f"{missing} not in: {found}"


def explicit(name):
    """On a mesh of Explicit axes a scan has a stable carry, and its numbers are those of one device."""
    tx, dtype, mesh = TRANSFORMATIONS[name](), dtype_of(name), mesh_of(AxisType.Explicit)
    with entered(mesh):
        params = placed(mesh, tree(100, dtype))
        state = tx.init(params)
        inside = jax.jit(tx.init)(params)
        for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(inside), strict=True):
            assert jax.typeof(x) == jax.typeof(y), (
                f"{jax.tree_util.keystr(path)}: {jax.typeof(x)}, in jit {jax.typeof(y)}"
            )
        for x, spec in zip(jax.tree.leaves(state), jax.tree.leaves(specs_of(state)), strict=True):
            assert x.sharding.is_equivalent_to(NamedSharding(mesh, spec), x.ndim), f"{x.sharding} instead of {spec}"
        gradients = {k: jax.device_put(x, NamedSharding(mesh, P(None, *SPECS[k]))) for k, x in streams(dtype).items()}
        for way in ways(tx):
            got = jax.jit(lambda *given: scanned(stepper(tx, way), *given))(params, state, gradients)
            difference = apart(got, alone(name, way), 64)
            assert not difference, f"{name}, {way}: {difference}"


def shapes(name):
    """A state made from shapes that carry a sharding lies where that of arrays lies."""
    tx, dtype = TRANSFORMATIONS[name](), dtype_of(name)
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = mesh_of(kind)
        for context in (contextlib.nullcontext(), entered(mesh)):
            with context:
                params = placed(mesh, tree(100, dtype))
                like = {k: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for k, x in params.items()}
                got, expected = tx.init(like), tx.init(params)
                for (path, x), spec in zip(
                    jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(specs_of(got)), strict=True
                ):
                    where = f"{name} on {kind.name} axes: {jax.tree_util.keystr(path)} on {x.sharding}, not {spec}"
                    assert not tuple(spec) or x.sharding.is_equivalent_to(NamedSharding(mesh, spec), x.ndim), where
                for x, y in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
                    assert x.sharding.is_equivalent_to(y.sharding, x.ndim), f"{x.sharding}, of arrays {y.sharding}"
                    assert (x.shape, x.dtype) == (y.shape, y.dtype)


def cut(name):
    """Blocks that Explicit axes would cut are refused by `init`, as by `shard_state`."""
    tx, mesh = TRANSFORMATIONS[name](), mesh_of(AxisType.Explicit)
    params = {"w": jax.device_put(jnp.ones((4, 96)), NamedSharding(mesh, P(None, "x")))}
    with entered(mesh):
        for init in (tx.init, jax.jit(tx.init)):
            with raised(
                ValueError, "the moments of w are quantized in blocks of", "splits its last axis of 96 into 4 parts"
            ):
                init(params)


def main(kinds):
    """Runs the checks that the command line asks for."""
    for given in sys.argv[1:] or kinds:
        kind, _, name = given.partition("/")
        check, names = kinds[kind]
        for one in [name] if name else names:
            check(one)
            print(f"{kind}/{one} ok", flush=True)


QUANTIZED = ["averaged, int8", "int8", "int4", "fused int8", "float8", "float16", "guarded int8", "probed int8"]
KINDS = {"explicit": (explicit, TRANSFORMATIONS), "shapes": (shapes, TRANSFORMATIONS), "cut": (cut, QUANTIZED)}

if __name__ == "__main__":
    main(KINDS)
