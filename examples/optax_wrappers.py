"""adamx inside optax's wrappers: accumulated gradients, lookahead, and sharpness-aware minimization.

    python examples/optax_wrappers.py

Accumulating four quarters of a batch is the whole batch: the parameters agree to the rounding of a mean.
"""

import jax
import jax.numpy as jnp
import optax
import optax.contrib

import adamx

STEPS = 1000
key_x, key_w, key_target = jax.random.split(jax.random.key(0), 3)
x = jax.random.normal(key_x, (64, 8))
y = jnp.tanh(x @ jax.random.normal(key_target, (8, 1)))
start = {"w": jax.random.normal(key_w, (8, 1)) / 4, "b": jnp.zeros(1)}
whole = (jnp.broadcast_to(x, (STEPS, 64, 8)), jnp.broadcast_to(y, (STEPS, 64, 1)))
quarters = (jnp.tile(x.reshape(4, 16, 8), (STEPS, 1, 1)), jnp.tile(y.reshape(4, 16, 1), (STEPS, 1, 1)))


def loss(params, x, y):
    return jnp.mean((jnp.tanh(x @ params["w"] + params["b"]) - y) ** 2)


def train(tx, params, batches, read=lambda params: params):
    def step(carry, batch):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(read(params), *batch), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, batches))((params, tx.init(params)))
    return params


plain = train(adamx.adam(1e-2), start, whole)
print(f"adam: loss {loss(plain, x, y):.1e}")

accumulated = train(optax.MultiSteps(adamx.adam(1e-2), every_k_schedule=4), start, quarters)
difference = max(float(jnp.abs(plain[k] - accumulated[k]).max()) for k in start)
print(f"MultiSteps over four quarters: parameters differ by {difference:.0e}")
assert difference < 1e-4

both = optax.LookaheadParams.init_synced(start)
fast_and_slow = optax.lookahead(adamx.adam(1e-2), sync_period=5, slow_step_size=0.5)
ahead = train(fast_and_slow, both, whole, read=lambda params: params.fast)
print(f"lookahead: loss {loss(ahead.slow, x, y):.1e}")

adversary = optax.chain(optax.contrib.normalize(), optax.sgd(0.02))
flat = train(optax.contrib.sam(adamx.adam(1e-2), adversary, sync_period=2), start, whole)
print(f"sharpness-aware: loss {loss(flat, x, y):.1e}")
assert max(loss(p, x, y) for p in (plain, accumulated, ahead.slow, flat)) < 0.02
