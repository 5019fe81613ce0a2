"""A program for a process of its own: `shard_state` around parameters that are split already, and in training.

Run `python tests/layouts.py`; it prints what held, one line each.
"""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import zero
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import adamx

jax.config.update("jax_cpu_enable_async_dispatch", False)  # or steps of 8 devices wait for each other's threads

LEAVES = {  # shape, where the parameter is, where its moments go: blocks of 32 stay together
    "column": ((64, 256), P(None, "model"), P("data", "model")),
    "blocks of 32 in 48": ((256, 96), P("model", None), P(("model", "data"))),
    "fsdp": ((64, 128), P("data", None), P("data")),
    "bias": ((256,), P("model"), P(("model", "data"))),
}


def draw(seed, names):
    random = np.random.default_rng(seed)
    return {name: jnp.asarray(random.standard_normal(LEAVES[name][0]), jnp.float32) for name in names}


def split_already(kind):
    """Tensor parallel and fully sharded parameters keep their specs, the moments add the data axis."""
    names = LEAVES if kind == "Auto" else ["column", "fsdp", "bias"]
    mesh = zero.mesh_of(AxisType[kind], (2, 4), ("data", "model"))
    plain = adamx.adamw(1e-3, **zero.CODED if kind == "Auto" else {})
    tx = adamx.shard_state(plain, mesh, specs={name: LEAVES[name][1] for name in names} if kind == "Auto" else None)

    def place(values):
        return {name: jax.device_put(x, NamedSharding(mesh, LEAVES[name][1])) for name, x in values.items()}

    params = place(draw(100, names))
    state = tx.init(params)
    for name, x in state[0].mu.items():
        for array in jax.tree.leaves(x):
            expected = NamedSharding(mesh, LEAVES[name][2])
            assert array.sharding.is_equivalent_to(expected, array.ndim), f"{name} on {array.sharding}"
    step = zero.jitted(tx).lower(params, state, params).compile()
    got, expected, alone = (params, state), (draw(100, names), plain.init(draw(100, names))), zero.jitted(plain)
    for t in range(3):
        got = step(*got, place(draw(t, names)))
        expected = alone(*expected, draw(t, names))
    assert not zero.SAME_BITS or not zero.differing(got, expected), zero.differing(got, expected)
    # Each device gathers, of the parameters that are whole over "data", its part over "model".
    gathered = sum(zero.sizes(result) for result, what in zero.collectives(step.as_text()) if what == "all-gather")
    assert gathered == sum(x.nbytes // 4 for name, x in draw(0, names).items() if name != "fsdp"), gathered
    assert {what for _, what in zero.collectives(step.as_text())} == {"all-gather"}
    print(f"split already, {kind} axes: ok")


def starts_in_parts():
    """`init` makes no whole moment on any device, inside jit and outside, also where it copies values."""
    mesh = zero.mesh_of(AxisType.Auto)
    tx = adamx.shard_state(adamx.adam(1e-3), mesh)
    params = zero.whole(mesh, zero.tree(0))
    compiled = jax.jit(tx.init).lower(params).compile()
    assert "[64,256]" not in compiled.as_text()
    where = adamx.sharding.state_sharding(tx, params, mesh)
    assert compiled.memory_analysis().output_size_in_bytes < where.per_device + 512  # a table of pointers
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    for state in (jax.jit(tx.init)(params), tx.init(params), tx.init(abstract)):
        assert state[0].mu["rows"].addressable_shards[0].data.shape == (8, 256)
        assert state[0].nu["wide"].addressable_shards[0].data.shape == (3, 64)
    rows = {"rows": params["rows"]}
    updates, state = tx.update(rows, tx.init(rows), rows)  # op by op
    assert updates["rows"].sharding.is_fully_replicated
    assert state[0].mu["rows"].addressable_shards[0].data.shape == (8, 256)
    print("starts in parts: ok")


def dyadic(seed, *shape):
    """Numbers whose products add up exactly in any order: integers over 8."""
    return jnp.asarray(np.random.default_rng(seed).integers(-8, 9, shape) / 8, jnp.float32)


def training(tx):
    """A step whose gradients are sums over the batch."""

    def loss(params, x, y):
        return jnp.sum((x @ params["kernel"] + params["bias"]) * y) + x[:, :3].sum(axis=0) @ params["odd"]

    def step(params, state, x, y):
        value, gradients = jax.value_and_grad(loss)(params, x, y)
        return *adamx.step(tx, gradients, state, params), value

    return step


PLAIN = adamx.adam(1e-3)
ALONE = jax.jit(training(PLAIN))


def collectives_of_a_step(n):
    """Data-parallel training on n devices: the bytes of docs/sharding.md, and the bits of one device."""
    mesh = zero.mesh_of(AxisType.Auto, (n,))
    start = {"kernel": dyadic(0, 256, 512), "bias": dyadic(1, 512), "odd": dyadic(2, 3)}
    tx = adamx.shard_state(PLAIN, mesh)
    params = zero.whole(mesh, start)
    state = tx.init(params)

    def batch(t):
        return [
            jax.device_put(dyadic(10 * t + k, 64, width), NamedSharding(mesh, P("data")))
            for k, width in ((3, 256), (4, 512))
        ]

    step = jax.jit(training(tx)).lower(params, state, *batch(0)).compile()
    found = zero.collectives(step.as_text())
    total = {what: sum(zero.sizes(result) for result, kind in found if kind == what) for _, what in found}
    size = sum(x.nbytes for x in start.values())
    odd = start["odd"].nbytes
    assert total == {"all-reduce": size + 4, "all-gather": size - odd}, (total, size)  # 4: the loss
    here = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves((state[0].mu, state[0].nu)))
    assert here == 2 * (size - odd) // n + 2 * odd

    got, expected = (params, state), (start, PLAIN.init(start))
    for t in range(3):
        *got, _ = step(*got, *batch(t))
        *expected, _ = ALONE(*expected, *jax.device_get(batch(t)))
    assert not zero.differing(tuple(got), tuple(expected)), zero.differing(tuple(got), tuple(expected))
    print(f"collectives on {n} devices: ok")


def continues_after_a_restore():
    """A state restored by Orbax to its shardings continues with equal bits, and stays there in a scan."""
    mesh = zero.mesh_of(AxisType.Auto)
    tx = adamx.shard_state(zero.TRANSFORMATIONS["masked int8"], mesh)
    params = zero.whole(mesh, zero.tree(100))
    step = jax.jit(lambda params, state, g: adamx.step(tx, g, state, params))
    params, state = step(params, tx.init(params), zero.whole(mesh, zero.tree(0)))
    where = adamx.sharding.state_sharding(tx, params, mesh).shardings
    template = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, where)
    with tempfile.TemporaryDirectory() as folder, ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(f"{folder}/state", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(f"{folder}/state", template)
    straight, resumed = (step(params, kept, zero.whole(mesh, zero.tree(1))) for kept in (state, restored))
    assert not zero.differing(resumed, straight), zero.differing(resumed, straight)

    def two_steps(carry, g):
        return jax.lax.scan(lambda carry, _: (step(*carry, g), None), carry, length=2)[0]

    scanned = jax.jit(two_steps)((params, restored), zero.whole(mesh, zero.tree(1)))
    assert scanned[0]["rows"].sharding.is_fully_replicated
    for kept in (resumed[1], scanned[1]):
        for x, sharding in zip(jax.tree.leaves(kept), jax.tree.leaves(where), strict=True):
            assert x.sharding.is_equivalent_to(sharding, x.ndim), f"{sharding} becomes {x.sharding}"
    print("restored and scanned: ok")


def updates_are_gathered_once():
    """Through `update` an update is gathered, not what it is made of."""
    mesh = zero.mesh_of(AxisType.Auto)
    tx = adamx.shard_state(adamx.with_master_weights(optax.sgd(0.1)), mesh)
    params = zero.whole(mesh, {"rows": zero.tree(0, jnp.bfloat16)["rows"]})
    program = jax.jit(tx.update).lower(params, tx.init(params), params).compile()
    assert [what for _, what in zero.collectives(program.as_text())] == ["all-gather"], program.as_text()
    print("updates gathered once: ok")


def beside_others():
    """Norms inside it are those of whole arrays; a guard around it skips a faulty step."""
    mesh, steps, rate = zero.mesh_of(AxisType.Auto), 4, 1e-3
    plain = adamx.chain(optax.clip_by_global_norm(1.0), adamx.adam(rate))
    tx = adamx.skip_nonfinite(adamx.shard_state(plain, mesh))
    params, placed = zero.tree(100), zero.whole(mesh, zero.tree(100))
    state, kept = plain.init(params), jax.jit(tx.init)(placed)
    alone, step = zero.jitted(plain), zero.jitted(tx)
    program = step.lower(placed, kept, placed).compile()
    assert "all-reduce" in {what for _, what in zero.collectives(program.as_text())}  # of squares, each of its part
    for t in range(steps):
        params, state = alone(params, state, zero.tree(t))
        placed, kept = program(placed, kept, zero.whole(mesh, zero.tree(t)))
        placed, kept = program(placed, kept, zero.whole(mesh, jax.tree.map(lambda x: x * jnp.nan, zero.tree(t))))
    assert int(kept.skipped) == steps
    # The sum of squares of N elements in another order puts the norm, a factor of the whole gradient, off by N/2 eps at
    # most. That moves m̂ by as much of the mean |g|, which is at most 7.25 √v̂, and √v̂ by as much of itself.
    elements = sum(x.size for x in params.values())
    bound = steps * rate * 2 * 7.25 * elements / 2 * float(jnp.finfo(jnp.float32).eps)
    apart = max(float(jnp.max(jnp.abs(params[name] - placed[name]))) for name in params)
    assert apart <= bound < rate / 4, f"{apart} apart, {bound} allowed"
    print(f"beside others: ok, {apart:.1e} apart")


if __name__ == "__main__":
    split_already("Auto")
    split_already("Explicit")
    starts_in_parts()
    for devices in (2, 4, 8):
        collectives_of_a_step(devices)
    continues_after_a_restore()
    updates_are_gathered_once()
    beside_others()
