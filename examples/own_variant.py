"""A variant of Adam as one stage of your own: cautious Adam.

    python examples/own_variant.py

The cautious rule (Liang et al. 2024, arXiv 2411.16085) takes no step in the coordinates whose momentum and gradient
differ in sign, and longer steps in the others. It reads g and m and changes m: a function from Moments to Moments,
between the stage that makes them and the one that uses them up.
"""

import jax
import jax.numpy as jnp
import optax

import adamx


def cautious(moments: adamx.Moments) -> adamx.Moments:
    """`m <- m φ / mean(φ)`, `φ = 1 where m g > 0, else 0`, leaf by leaf."""

    def agree(m: jax.Array, g: jax.Array) -> jax.Array:
        mask = m * g > 0
        return m * mask / jnp.maximum(mask.mean(), 1 / m.size)

    return moments.replace(mu=jax.tree.map(agree, moments.mu, moments.gradients))


def losses(optimizer: optax.GradientTransformation, steps: int) -> jax.Array:
    """A narrow valley in 50 dimensions, curved from 0.01 to 100, looked at before every step."""
    curvature = jnp.logspace(-2, 2, 50)

    def loss_of(x: jax.Array) -> jax.Array:
        return jnp.sum(curvature * x**2) / 2

    def step(carry, _):
        x, state = carry
        loss, gradient = jax.value_and_grad(loss_of)(x)
        updates, state = optimizer.update(gradient, state, x)
        return (optax.apply_updates(x, updates), state), loss

    x = jnp.ones(50)
    return jax.jit(lambda: jax.lax.scan(step, (x, optimizer.init(x)), length=steps)[1])()


adam = losses(adamx.adam(0.05), 401)
by_hand = optax.chain(
    adamx.scale_by_moments(), adamx.between("cautious", cautious), adamx.bias_correction(), adamx.scale_by_lr(0.05)
)
own = losses(by_hand, 401)
print("step   loss of adam   of cautious adam")
for t in range(0, 401, 50):
    print(f"{t:4}   {adam[t]:12.3e}   {own[t]:16.3e}")
assert own[-1] < own[0] / 1000
