"""Trains a network on few noisy data and prints the validation loss of its last and of its averaged parameters.

    python examples/average_parameters.py

The averages ride along: an exponential one, and the plain mean of the parameters after the first half of the steps. The
parameters are bfloat16, and what is averaged are the float32 weights behind them.
"""

import functools

import jax
import jax.numpy as jnp

import adamx

STEPS, BATCH, RATE = 2000, 32, 1e-2
AVERAGES = {
    "decay 0.99": {"decay": 0.99},
    "decay 0.96, once in 4 steps, in bfloat16": {"decay": 0.96, "every": 4, "dtype": "bfloat16"},
    "mean of the second half": {"decay": lambda k: k / (k + 1), "start": STEPS // 2},
}


def data(key, count):
    """Points on which a smooth function of 8 numbers is known with some noise."""
    points, noise = jax.random.split(key)
    x = jax.random.normal(points, (count, 8))
    y = jnp.sin(2 * x[:, :1]) * x[:, 1:2] + jnp.tanh(x[:, 2:3])
    return x, y + 0.5 * jax.random.normal(noise, y.shape)


def loss(params, x, y):
    params = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    hidden = jnp.tanh(x @ params["in"] + params["bias"])
    return jnp.mean((hidden @ params["out"] - y) ** 2)


@functools.partial(jax.jit, static_argnums=0)
def train(tx, params, x, y):
    def step(carry, key):
        params, state = carry
        chosen = jax.random.randint(key, (BATCH,), 0, len(x))
        return adamx.step(tx, jax.grad(loss)(params, x[chosen], y[chosen]), state, params), None

    keys = jax.random.split(jax.random.key(1), STEPS)
    return jax.lax.scan(step, (params, tx.init(params)), keys)[0]


def main():
    keys = jax.random.split(jax.random.key(0), 4)
    training, validation = data(keys[0], 4096), data(keys[1], 4096)
    params = {
        "in": jax.random.normal(keys[2], (8, 64)) / 8**0.5,
        "bias": jnp.zeros(64),
        "out": jax.random.normal(keys[3], (64, 1)) / 64**0.5,
    }
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    losses = {}
    for name, arguments in AVERAGES.items():
        tx = adamx.with_ema(adamx.with_master_weights(adamx.adam(RATE)), **arguments)
        last, state = train(tx, params, *training)
        losses["last parameters"] = loss(last, *validation)
        losses[name] = loss(adamx.ema_params(state, last, jnp.float32), *validation)
    print(f"{'parameters':44} validation loss")
    for name, value in losses.items():
        print(f"{name:44} {value:.4f}")
    assert all(value < losses["last parameters"] for name, value in losses.items() if name != "last parameters")


if __name__ == "__main__":
    main()
