"""A program for a process of its own: every optimizer, storage and wrapper on 8 host devices.

Run `python tests/meshes.py KIND/NAME...`, "explicit/int8" say, or with kinds alone, or without any for all; it prints
what held, one line each.

explicit: on a mesh of Explicit axes a scan has a stable carry, and its numbers are those of one device.
manual: so it is over shards inside `shard_map`, with the check of its types and without.
forgotten: inside `shard_map`, gradients that nobody averaged are refused.
shapes: a state made from shapes that carry a sharding lies where that of arrays lies.
members, faulty, cut: see the functions.
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
from adamx.core.update import Update
from adamx.kernels import layout

layout.MANY = 0  # the kernel takes leaves however small, as in tests/kernels
jax.config.update("jax_cpu_enable_async_dispatch", False)  # or steps of 8 devices wait for each other's threads

INT8 = adamx.storage.Int8(block_size=32, min_size=0)
FLOAT8 = adamx.storage.Float("float8_e4m3fn")
STORAGES = {
    "int8": {"mu_dtype": INT8, "nu_dtype": INT8},
    "float8": {"mu_dtype": FLOAT8, "nu_dtype": "float8_e5m2"},
    "float16": {"mu_dtype": "bfloat16", "nu_dtype": "float16"},
    "bfloat16": {"mu_dtype": "bfloat16", "nu_dtype": "bfloat16"},
}


def probed(rate, **storages):
    return optax.chain(
        adamx.scale_by_moments(**storages), adamx.probe(rate, every=1), adamx.bias_correction(), adamx.scale_by_lr(rate)
    )


WRAPPERS = {
    "guard": lambda: adamx.skip_nonfinite(adamx.adamw(1e-3)),
    "guarded int8": lambda: adamx.skip_nonfinite(adamx.adamw(1e-3, **STORAGES["int8"])),
    "probe": lambda: probed(1e-3),
    "probed int8": lambda: probed(1e-3, **STORAGES["int8"]),
    "master weights": lambda: adamx.with_master_weights(adamx.adamw(1e-3)),
    "master weights, int8": lambda: adamx.with_master_weights(adamx.adamw(1e-3, **STORAGES["int8"])),
    "stochastic rounding": lambda: adamx.with_stochastic_rounding(adamx.adamw(1e-3, **STORAGES["bfloat16"])),
    "guarded master weights": lambda: adamx.skip_nonfinite(adamx.with_master_weights(adamx.stable_adamw(1e-3))),
    "precise": lambda: adamx.adam(1e-3, b2=0.999999, precise=True),
    "adamax, int8": lambda: adamx.adamax(1e-3, **STORAGES["int8"]),
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


def mapped(f, mesh, in_specs, out_specs, check):
    if hasattr(jax, "shard_map"):
        return jax.shard_map(f, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=check)
    from jax.experimental.shard_map import shard_map  # noqa: PLC0415 (jax 0.6.0)

    return shard_map(f, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_rep=check)


def specs_of(values):
    """The spec of each array of parameters, gradients or state, by the name of the leaf in its path."""

    def spec(path, x):
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey) and key.key in SPECS]
        return SPECS[names[0]] if names and np.ndim(x) == len(SHAPES[names[0]]) else P()

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
    """The leaves that differ by more than some units in the last place of their largest element."""
    found = {}
    pairs = zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected), strict=True)
    for (path, x), y in pairs:
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


def manual(name):
    tx, dtype, mesh = TRANSFORMATIONS[name](), dtype_of(name), mesh_of(AxisType.Auto)
    params, gradients = tree(100, dtype), streams(dtype)
    state = tx.init(params)
    given = (params, state, gradients)
    in_specs = (*specs_of((params, state)), {k: P(None, *spec) for k, spec in SPECS.items()})
    for check in (True, False):
        if name == "mars" and not check:
            continue
        for way in ways(tx):

            def local(params, state, gradients):
                where = adamx.storage.shard_offsets(params, SPECS)
                return scanned(stepper(tx, way, dither_offset=where), params, state, gradients)

            got = jax.jit(mapped(local, mesh, in_specs, in_specs[:2], check))(*given)
            difference = apart(got, alone(name, way), 64)
            assert not difference, f"{name}, {way}, check {check}: {difference}"


def forgotten(name):
    tx, dtype, mesh = TRANSFORMATIONS[name](), dtype_of(name), mesh_of(AxisType.Auto)
    params = tree(100, dtype)
    given = (params, tx.init(params))
    whole = jax.tree.map(lambda _: P(), given)
    for way in ways(tx):

        def local(params, state):
            return stepper(tx, way)(params, state, jax.tree.map(lambda p: p * jax.lax.axis_index("x"), params))

        with raised(ValueError, "replicat"):
            jax.jit(mapped(local, mesh, whole, whole, True))(*given)


def shapes(name):
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


def members(name):
    """A model of its own on each device of an axis, its counters too: nothing is summed over them."""
    tx, dtype, mesh = TRANSFORMATIONS[name](), dtype_of(name), mesh_of(AxisType.Auto)
    each = [jax.tree.map(lambda x, t=t: x * (t + 1.5), tree(t, dtype)) for t in range(4)]
    each[1]["odd"] = each[1]["odd"].at[0, 0].set(jnp.nan if "guard" in name else 1)
    start = [(params, tx.init(params)) for params in [tree(100, dtype)] * 4]
    expected = [jax.jit(stepper(tx, "update"))(*given, g) for given, g in zip(start, each, strict=True)]

    def local(*stacked):
        return jax.tree.map(lambda x: x[None], stepper(tx, "update")(*jax.tree.map(lambda x: x[0], stacked)))

    given = jax.tree.map(lambda *x: jnp.stack(x), *[(*before, g) for before, g in zip(start, each, strict=True)])
    got = jax.jit(mapped(local, mesh, P("x"), P("x"), True))(*given)
    difference = apart(got, jax.tree.map(lambda *x: jnp.stack(x), *expected), 64)
    assert not difference, f"{name}: {difference}"


def faulty(name):
    """One shard with a NaN stops the step on every device, and the next one is taken."""
    tx, dtype, mesh = TRANSFORMATIONS[name](), dtype_of(name), mesh_of(AxisType.Auto)
    params = tree(100, dtype)
    given = (params, tx.init(params))
    specs = specs_of(given)
    bad = tree(0, dtype) | {"odd": tree(0, dtype)["odd"].at[3, 5].set(jnp.nan)}
    for check in (True, False):
        for way in ("step", "update"):

            def local(params, state, g):
                where = adamx.storage.shard_offsets(params, SPECS)
                return stepper(tx, way, dither_offset=where)(params, state, g)

            step = jax.jit(mapped(local, mesh, (*specs, SPECS), specs, check))
            skipped = step(*given, bad)
            counts = {int(x.data) for x in skipped[1].skipped.addressable_shards}
            assert counts == {1}, f"{name}, {way}, check {check}: counted {counts}"
            for x in jax.tree.leaves(skipped[0]):
                assert len({np.isfinite(np.float32(s.data)).all() for s in x.addressable_shards}) == 1
            assert not apart(skipped[0], params, 0), f"{name}, {way}, check {check}: moved"
            taken = step(*skipped, tree(0, dtype))
            straight = step(*given, tree(0, dtype))
            assert not apart(taken[0], straight[0], 0), f"{name}, {way}, check {check}: not as if it had not been"


def cut(name):
    """Blocks that Explicit axes would cut are refused by `init`, as by `shard_state`; so are scales of other codes."""
    tx, mesh = TRANSFORMATIONS[name](), mesh_of(AxisType.Explicit)
    params = {"w": jax.device_put(jnp.ones((4, 96)), NamedSharding(mesh, P(None, "x")))}
    with entered(mesh):
        for init in (tx.init, jax.jit(tx.init)):
            with raised(
                ValueError, "the moments of w are coded in blocks of", "splits its last axis of 96 into 4 parts"
            ):
                init(params)
    mesh = mesh_of(AxisType.Auto)
    params = {"w": jnp.ones((4, 256))}
    state = tx.init(params)
    specs = jax.tree.map(lambda x: P(None, "x") if x.shape == (4, 256) else P(), state)
    for way in ways(tx):
        step = mapped(stepper(tx, way), mesh, (P(None, "x"), specs, P(None, "x")), (P(None, "x"), specs), False)
        with raised(ValueError, "codes of shape (4, 64)", "the spec of their parameter"):
            jax.jit(step)(params, state, params)


KINDS = {
    "explicit": (explicit, TRANSFORMATIONS),
    "manual": (manual, TRANSFORMATIONS),
    "forgotten": (forgotten, TRANSFORMATIONS),
    "shapes": (shapes, TRANSFORMATIONS),
    "members": (members, ["cautious_adamw", "stable_adamw", "mars", "guard", "probe"]),
    "faulty": (faulty, [name for name in WRAPPERS if "guard" in name]),
    "cut": (cut, ["int8", "float8", "float16", "guarded int8", "probed int8"]),
}

if __name__ == "__main__":
    for given in sys.argv[1:] or KINDS:
        kind, _, name = given.partition("/")
        check, names = KINDS[kind]
        for one in [name] if name else names:
            check(one)
            print(f"{kind}/{one} ok", flush=True)
