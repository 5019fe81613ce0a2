"""Bad batches among good ones: three have targets a thousand times too large, and a guard leaves them out.

Run it as `python examples/skip_spikes.py`.
"""

import jax
import jax.numpy as jnp
import optax

import adamx

STEPS, BAD = 600, (150, 300, 450)
RATE = optax.cosine_decay_schedule(3e-3, STEPS)
WAYS = {
    "good batches, no guard": (adamx.adamw(RATE), ()),
    "no guard": (adamx.adamw(RATE), BAD),
    "adamx.skip_spikes": (adamx.skip_spikes(adamx.adamw(RATE)), BAD),
}
FAR = jax.random.normal(jax.random.key(1), (16, 4))


def batch(key, size=64):
    x = jax.random.normal(key, (size, 16))
    return x, jnp.sin(x @ FAR / 4)


def loss(params, x, y):
    hidden = jnp.tanh(x @ params["in"])
    return jnp.mean((hidden @ params["out"] - y) ** 2)


def train(tx, bad):
    key_in, key_out = jax.random.split(jax.random.key(0))
    params = {"in": jax.random.normal(key_in, (16, 128)) / 4, "out": jax.random.normal(key_out, (128, 4)) / 11}

    def step(carry, given):
        key, size = given
        x, y = batch(key)
        value, gradients = jax.value_and_grad(loss)(carry[0], x, y * size)
        return adamx.step(tx, gradients, carry[1], carry[0], value=value), None

    sizes = jnp.array([1000.0 if t in bad else 1.0 for t in range(STEPS)])
    keys = jax.random.split(jax.random.key(2), STEPS)
    (params, state), _ = jax.jit(lambda start: jax.lax.scan(step, start, (keys, sizes)))((params, tx.init(params)))
    return params, state


def main():
    test = batch(jax.random.key(3), 4096)
    print(f"{'':22} {'loss at the end':>15} {'skipped':>8}")
    for name, (tx, bad) in WAYS.items():
        params, state = train(tx, bad)
        print(f"{name:22} {loss(params, *test):15.4f} {int(getattr(state, 'skipped', 0)):8}")


if __name__ == "__main__":
    main()
