"""A program for a process of its own: every optimizer, storage and wrapper over shards, inside `jax.shard_map`.

Run `python tests/manual.py KIND/NAME...`, "forgotten/adamw" say; as for `tests/meshes.py`.
"""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from meshes import (
    QUANTIZED,
    SPECS,
    TRANSFORMATIONS,
    WRAPPERS,
    alone,
    apart,
    dtype_of,
    main,
    mesh_of,
    raised,
    scanned,
    specs_of,
    stepper,
    streams,
    tree,
    ways,
)

import adamx


def mapped(f, mesh, in_specs, out_specs, check):
    if hasattr(jax, "shard_map"):
        return jax.shard_map(f, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=check)
    from jax.experimental.shard_map import shard_map  # noqa: PLC0415 (jax 0.6.0)

    return shard_map(f, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_rep=check)


def manual(name):
    """A scan over shards has the numbers of one device, with the check of types and without."""
    tx, dtype, mesh = TRANSFORMATIONS[name](), dtype_of(name), mesh_of(AxisType.Auto)
    params, gradients = tree(100, dtype), streams(dtype)
    state = tx.init(params)
    given = (params, state, gradients)
    in_specs = (*specs_of((params, state)), {k: P(None, *spec) for k, spec in SPECS.items()})
    for check in (True, False):
        if name in {"mars", "guarded from spikes", "measured"} and not check:
            continue  # a norm counts copies of a leaf that no type tells from shards
        for way in ways(tx):

            def local(params, state, gradients):
                where = adamx.storage.shard_offsets(params, SPECS)
                return scanned(stepper(tx, way, dither_offset=where), params, state, gradients)

            got = jax.jit(mapped(local, mesh, in_specs, in_specs[:2], check))(*given)
            difference = apart(got, alone(name, way), 64)
            assert not difference, f"{name}, {way}, check {check}: {difference}"


def forgotten(name):
    """Gradients that nobody averaged are refused."""
    tx, dtype, mesh = TRANSFORMATIONS[name](), dtype_of(name), mesh_of(AxisType.Auto)
    params = tree(100, dtype)
    given = (params, tx.init(params))
    whole = jax.tree.map(lambda _: P(), given)
    for way in ways(tx):

        def local(params, state):
            return stepper(tx, way)(params, state, jax.tree.map(lambda p: p * jax.lax.axis_index("x"), params))

        with raised(ValueError, "replicat"):
            jax.jit(mapped(local, mesh, whole, whole, True))(*given)


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


def scales(name):
    """A scale that is whole beside codes that are split is refused."""
    tx, mesh, params = TRANSFORMATIONS[name](), mesh_of(AxisType.Auto), {"w": jnp.ones((4, 256))}
    state = tx.init(params)
    specs = jax.tree.map(lambda x: P(None, "x") if x.shape == (4, 256) else P(), state)
    for way in ways(tx):
        step = mapped(stepper(tx, way), mesh, (P(None, "x"), specs, P(None, "x")), (P(None, "x"), specs), False)
        with raised(ValueError, "codes of shape (4, 64)", "the spec of their parameter"):
            jax.jit(step)(params, state, params)


KINDS = {
    "manual": (manual, TRANSFORMATIONS),
    "forgotten": (forgotten, TRANSFORMATIONS),
    "members": (members, ["cautious_adamw", "stable_adamw", "mars", "guard", "guarded from spikes", "probe"]),
    "faulty": (faulty, [name for name in WRAPPERS if "guard" in name]),
    "scales": (scales, QUANTIZED),
}

if __name__ == "__main__":
    main(KINDS)
