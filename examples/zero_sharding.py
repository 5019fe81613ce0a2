"""Trains on 8 devices, the optimizer's state split over them, and on one: bytes on each device, and the difference.

Forces 8 devices on the CPU; leave that line out where there are real ones. Run it as
`python examples/zero_sharding.py`.
"""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 " + os.environ.get("XLA_FLAGS", "")

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import adamx

STEPS, RATE = 100, 1e-3


def loss(params, x, y):
    hidden = jnp.tanh(x @ params["in"] + params["bias"])
    return jnp.mean((hidden @ params["out"] - y) ** 2)


def train(tx, params, x, y):
    @jax.jit
    def step(params, state):
        return adamx.step(tx, jax.grad(loss)(params, x, y), state, params)

    state = tx.init(params)
    for _ in range(STEPS):  # one at a time: 8 devices on a few cores would wait for each other's threads
        params, state = jax.block_until_ready(step(params, state))
    return params, state


def main():
    key_x, key_in, key_out, key_target = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(key_x, (256, 64))
    y = jnp.sin(x @ jax.random.normal(key_target, (64, 10)) / 4)
    params = {
        "in": jax.random.normal(key_in, (64, 512)) / 8,
        "bias": jnp.zeros(512),
        "out": jax.random.normal(key_out, (512, 10)) / 16,
    }
    mesh = jax.sharding.Mesh(jax.devices(), ("data",))
    whole, batch = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))

    tx = adamx.adam(RATE)
    print(adamx.sharding.state_sharding(tx, params, mesh))
    alone, _ = train(tx, params, x, y)
    on_all, state = train(adamx.shard_state(tx, mesh), jax.device_put(params, whole), *jax.device_put((x, y), batch))
    here = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state))
    apart = max(float(jnp.max(jnp.abs(on_all[name] - alone[name]))) for name in alone)
    print(f"{here:,} of {sum(leaf.nbytes for leaf in jax.tree.leaves(state)):,} bytes of state on each device")
    print(f"loss {loss(on_all, x, y):.4f}; parameters differ from one device's by {apart / RATE:.1e} learning rates")


if __name__ == "__main__":
    main()
