"""Meta-gradients: the loss after ten steps of Adam, differentiated by where they start and by their learning rate.

    python examples/meta_gradients.py

The head starts at zero, so the first gradient of the body is exactly zero: there the update of optax.adam has the
derivative NaN, that of adamx.adam the true one.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamx

INNER, OUTER = 10, 60


def predict(params, x):
    return jnp.tanh(x @ params["body"]) @ params["head"]


def loss(params, x, y):
    return jnp.mean((predict(params, x) - y) ** 2)


def adapted_loss(meta, build, task):
    """The loss on held-out points of a task, after ten steps on the others."""
    (x, y), held_out = task
    params = {"body": meta["body"], "head": jnp.zeros((32, 1))}
    tx = build(jnp.exp(meta["log_rate"]))

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params, x, y), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=INNER)
    return loss(params, *held_out)


def tasks(key, count=16):
    """Sine waves of random phase: five points to learn from, fifty to be judged by."""
    phases = jax.random.uniform(key, (count, 1, 1), maxval=jnp.pi)
    x = jnp.linspace(-1, 1, 55)[None, :, None].repeat(count, 0)
    x = jnp.concatenate([x, jnp.ones_like(x)], axis=-1)
    y = jnp.sin(3 * x[..., :1] + phases)
    some = np.arange(55) % 11 == 5
    return ((x[:, some], y[:, some]), (x[:, ~some], y[:, ~some]))


def mean_loss(meta, build, batch):
    return jax.vmap(adapted_loss, (None, None, 0))(meta, build, batch).mean()


meta = {"body": jax.random.normal(jax.random.key(0), (2, 32)), "log_rate": jnp.log(1e-2)}
for name, build in {"optax.adam": optax.adam, "adamx.adam": adamx.adam}.items():
    slope = jax.grad(mean_loss)(meta, build, tasks(jax.random.key(1)))
    print(f"{name}: all meta-gradients finite: {all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(slope))}")

outer = adamx.adam(3e-2)
state = outer.init(meta)
learn = jax.jit(lambda m, s, k: adamx.step(outer, jax.grad(mean_loss)(m, adamx.adam, tasks(k)), s, m))
before = mean_loss(meta, adamx.adam, tasks(jax.random.key(99)))
for t in range(OUTER):
    meta, state = learn(meta, state, jax.random.key(t))
after = mean_loss(meta, adamx.adam, tasks(jax.random.key(99)))
print(f"after {INNER} steps on a new task: loss {before:.3f}, with what was learned {after:.3f}")
assert after < 0.5 * before
