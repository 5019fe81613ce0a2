"""Trains bfloat16 parameters in four ways and prints where they end, and the bytes of optimizer state a parameter.

Plain bfloat16 stops where a step is less than half a unit in the last place of the weight. Run it as
`python examples/bfloat16_training.py`.
"""

import functools

import jax
import jax.numpy as jnp
import optax

import adamx

WAYS = {
    "float32": (jnp.float32, optax.adam),
    "bfloat16, optax.adam": (jnp.bfloat16, optax.adam),
    "bfloat16, with_stochastic_rounding": (
        jnp.bfloat16,
        lambda rate: adamx.with_stochastic_rounding(adamx.adam(rate, mu_dtype="bfloat16", nu_dtype="bfloat16")),
    ),
    "bfloat16, with_master_weights": (
        jnp.bfloat16,
        lambda rate: adamx.with_master_weights(adamx.adam(rate, mu_dtype="bfloat16", nu_dtype="bfloat16")),
    ),
}


def loss(params, x, y):
    hidden = jnp.tanh(x @ params["in"].astype(jnp.float32))
    return jnp.mean((hidden @ params["out"].astype(jnp.float32) - y) ** 2)


@functools.partial(jax.jit, static_argnums=0)
def step(tx, params, state, x, y):
    updates, state = tx.update(jax.grad(loss)(params, x, y), state, params)
    return optax.apply_updates(params, updates), state


def main():
    key_x, key_in, key_out, key_target = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(key_x, (256, 64))
    y = jnp.sin(x @ jax.random.normal(key_target, (64, 4)) / 4)
    start = {"in": jax.random.normal(key_in, (64, 256)) / 8, "out": jax.random.normal(key_out, (256, 4)) / 16}
    print(f"{'parameters':36} {'loss':>8} {'bytes of state':>15}")
    for name, (dtype, build) in WAYS.items():
        tx, params = build(1e-4), jax.tree.map(lambda p: p.astype(dtype), start)  # noqa: B023
        state = tx.init(params)
        for _ in range(2000):
            params, state = step(tx, params, state, x, y)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / sum(p.size for p in jax.tree.leaves(params))
        print(f"{name:36} {loss(params, x, y):8.1e} {size:15.2f}")


if __name__ == "__main__":
    main()
