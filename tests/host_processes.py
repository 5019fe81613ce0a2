"""A program for one of several processes: each steps whole leaves on its host, and keeps shards on its two devices.

Run `python tests/host_processes.py COUNT INDEX PORT` for each INDEX below COUNT; they talk over loopback, by gloo.
"""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=3"

import sys

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import adamx  # before initialize, which an import that starts a backend would make impossible

COUNT, INDEX, PORT = map(int, sys.argv[1:])
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{PORT}", COUNT, INDEX, initialization_timeout=60)

HOST = jax.local_devices()[0]
FAR = [d for i in range(COUNT) for d in [d for d in jax.devices() if d.process_index == i][1:]]
MESH = jax.sharding.Mesh(np.array(FAR).reshape(COUNT, 2), ("data", "model"))
SPECS = {"kernel": P(None, "model"), "bias": P("model"), "scale": P()}


def tree(seed):
    """Integers over 8: their squares add up exactly in any order."""
    random = np.random.default_rng(seed)
    shapes = {"kernel": (16, 64), "bias": (64,), "scale": ()}
    return {name: np.asarray(random.integers(-8, 9, shape) / 8, np.float32) for name, shape in shapes.items()}


def placed(tree, specs):
    """Arrays over all processes, of which each makes its own shards."""
    return {
        name: jax.make_array_from_callback(x.shape, NamedSharding(MESH, specs[name]), x.__getitem__)
        for name, x in tree.items()
    }


assert jax.process_count() == COUNT
plain = adamx.skip_nonfinite(adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adamw(0.1)))
tx, step = adamx.on_host(plain), jax.jit(lambda params, state, g: adamx.step(plain, g, state, params))
params, expected = placed(tree(0), SPECS), jax.device_put(tree(0), HOST)
state, reference = tx.init(params), plain.init(expected)
for t in range(4):
    gradients = tree(t + 1)
    if t == 2:
        gradients["kernel"][3, 40] = np.nan
    params, state = adamx.step(tx, placed(gradients, SPECS), state, params)
    expected, reference = step(expected, reference, jax.device_put(gradients, HOST))
assert int(state.skipped) == 1
for x, y in zip(jax.tree.leaves((params, state)), jax.tree.leaves((expected, reference)), strict=True):
    for shard in x.addressable_shards:
        assert (np.asarray(shard.data) == np.asarray(y)[shard.index]).all()
assert all(x.sharding == NamedSharding(MESH, SPECS[name]) for name, x in params.items())
assert all(x.devices() == {HOST} for x in jax.tree.leaves(state))

try:
    tx.init(placed(tree(0), {**SPECS, "kernel": P("data")}))
    found = "nothing was raised"
except ValueError as error:
    found = str(error)
assert "the parameter at kernel has shards on devices of other processes alone" in found, found
print(f"{INDEX} of {COUNT}: ok")
