"""A program for one of several processes: data-parallel training with the state split over them.

Run `python tests/distributed.py COUNT INDEX PORT` for each INDEX below COUNT. Each has one CPU device and a part of
the batch; all of them talk over loopback, by gloo.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import adamx  # before initialize, which an import that starts a backend would make impossible

COUNT, INDEX, PORT = map(int, sys.argv[1:])
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{PORT}", COUNT, INDEX, initialization_timeout=60)


CODED = dict.fromkeys(("mu_dtype", "nu_dtype"), adamx.storage.Int8(block_size=32, min_size=100))
MESH = jax.sharding.Mesh(np.array(jax.devices()), ("data",), axis_types=(AxisType.Auto,))


def dyadic(seed, *shape):
    """Numbers whose products add up exactly in any order: integers over 8."""
    return np.random.default_rng(seed).integers(-8, 9, shape).astype(np.float32) / 8


def stepper(tx):
    def loss(params, x, y):
        return jnp.sum((x @ params["kernel"] + params["bias"]) * y)

    @jax.jit
    def step(params, state, x, y):
        return adamx.step(tx, jax.grad(loss)(params, x, y), state, params)

    return step


def spread(x, spec):
    """An array over all processes, of which each makes its own part."""
    return jax.make_array_from_callback(x.shape, NamedSharding(MESH, spec), lambda index: x[index])


assert jax.process_count() == COUNT == len(jax.devices())
start = {"kernel": dyadic(0, 16, 64), "bias": dyadic(1, 64)}
plain = adamx.adamw(1e-3, **CODED)
tx = adamx.shard_state(plain, MESH)
params = jax.tree.map(lambda x: spread(x, P()), start)
state = tx.init(params)
where = adamx.sharding.state_sharding(plain, params, MESH)
assert not where.whole
here = sum(shard.data.nbytes for x in jax.tree.leaves(state) for shard in x.addressable_shards)
assert here == where.per_device
assert COUNT * (here - where.rest) == where.total - where.rest

step, alone = stepper(tx), stepper(plain)
with jax.default_device(jax.local_devices()[0]):
    expected = jax.tree.map(jnp.asarray, start)
    expected = expected, plain.init(expected)
for t in range(3):
    batch = dyadic(10 * t + 3, 32, 16), dyadic(10 * t + 4, 32, 64)
    params, state = step(params, state, *(spread(x, P("data")) for x in batch))
    expected = alone(*expected, *batch)
assert step._cache_size() == 1, step._cache_size()
for (path, x), y in zip(jax.tree_util.tree_leaves_with_path((params, state)), jax.tree.leaves(expected), strict=True):
    for shard in x.addressable_shards:
        same = np.asarray(shard.data) == np.asarray(y)[shard.index]
        assert same.all(), f"{jax.tree_util.keystr(path)} differs in {same.size - same.sum()} elements"
print(f"{INDEX} of {COUNT}: ok, {here} of {where.total} bytes")
