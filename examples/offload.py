"""Trains bfloat16 parameters with the optimizer's state on another device: bytes on each, and the difference from one.

Forces two devices on the CPU, one in the place of an accelerator; leave these lines out where there is one. Run it as
`python examples/offload.py`.
"""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2 " + os.environ.get("XLA_FLAGS", "")

import jax
import jax.numpy as jnp

import adamx

STEPS = 50
HOST, ACCELERATOR = jax.devices("cpu")


def loss(params, x, y):
    hidden = jnp.tanh(x @ params["in"] + params["bias"])
    return jnp.mean((hidden @ params["out"] - y).astype(jnp.float32) ** 2)


def size(tree):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def main():
    key_x, key_in, key_out, key_target = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(key_x, (256, 64))
    y = jnp.sin(x @ jax.random.normal(key_target, (64, 10)) / 4)
    start = {
        "in": jax.random.normal(key_in, (64, 512)) / 8,
        "bias": jnp.zeros(512),
        "out": jax.random.normal(key_out, (512, 10)) / 16,
    }
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), (start, x, y))
    params, x, y = jax.device_put(half, ACCELERATOR)
    tx = adamx.with_master_weights(adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adamw(1e-3)))

    gradients_of = jax.jit(jax.grad(loss))
    alone, kept = jax.tree.map(jnp.copy, params), tx.init(params)
    step = jax.jit(lambda params, state, gradients: adamx.step(tx, gradients, state, params), donate_argnums=(0, 1))
    for _ in range(STEPS):
        alone, kept = step(alone, kept, gradients_of(alone, x, y))

    offloaded = adamx.on_host(tx, HOST)  # with an accelerator: adamx.on_host(tx)
    state = offloaded.init(params)
    for _ in range(STEPS):
        params, state = adamx.step(offloaded, gradients_of(params, x, y), state, params)

    on_host = {device for leaf in jax.tree.leaves(state) for device in leaf.devices()} == {HOST}
    print(f"{size(params):,} bytes of parameters on the accelerator")
    print(f"{size(state):,} bytes of state {'on the host' if on_host else 'elsewhere'}")
    equal = all(bool(jnp.all(params[name] == alone[name])) for name in params)
    print(f"loss {loss(params, x, y):.4f}; parameters {'equal' if equal else 'differ from'} those of one device")


if __name__ == "__main__":
    main()
