"""Equinox: a small network follows a curve, with clipping and a schedule, by adamx.step under eqx.filter_jit.

    python examples/equinox_mlp.py

An Equinox model holds arrays and other things, its activation function among them: the optimizer is given the arrays.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import adamx

STEPS = 1000
x = jnp.linspace(-1, 1, 200)[:, None]
y = jnp.sin(3 * jnp.pi * x) * jnp.exp(-x)

model = eqx.nn.MLP(in_size=1, out_size=1, width_size=64, depth=2, activation=jax.nn.tanh, key=jax.random.key(0))
optimizer = adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adam(optax.cosine_decay_schedule(3e-3, STEPS)))
state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))


@eqx.filter_value_and_grad
def loss_of(model: eqx.Module) -> jax.Array:
    return jnp.mean((jax.vmap(model)(x) - y) ** 2)


@eqx.filter_jit
def step(model: eqx.Module, state: optax.OptState) -> tuple[eqx.Module, optax.OptState, jax.Array]:
    loss, gradients = loss_of(model)
    params, rest = eqx.partition(model, eqx.is_inexact_array)
    params, state = adamx.step(optimizer, gradients, state, params)
    return eqx.combine(params, rest), state, loss


for t in range(STEPS + 1):
    model, state, loss = step(model, state)
    if t % 200 == 0:
        print(f"after {t:4} steps: mean squared error {loss:.2e}")
assert loss < 1e-3
