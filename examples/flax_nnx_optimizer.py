"""Flax NNX: adamx.adamw inside nnx.Optimizer, with a decay mask by path.

python examples/flax_nnx_optimizer.py
"""

import jax.numpy as jnp
from flax import nnx

import adamx

STEPS = 600


class Network(nnx.Module):
    """Two linear layers with a norm between them."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Linear(1, 64, rngs=rngs)
        self.norm = nnx.LayerNorm(64, rngs=rngs)
        self.last = nnx.Linear(64, 1, rngs=rngs)

    def __call__(self, x):  # noqa: D102
        return self.last(self.norm(jnp.tanh(self.first(x))))


x = jnp.linspace(-1, 1, 200)[:, None]
y = jnp.sin(3 * x)
model = Network(nnx.Rngs(0))
mask = adamx.not_matching("bias$", "^norm/")
optimizer = nnx.Optimizer(model, adamx.adamw(1e-2, weight_decay=1e-3, mask=mask), wrt=nnx.Param)


@nnx.jit
def step(model, optimizer):
    def loss_of(model):
        return jnp.mean((model(x) - y) ** 2)

    loss, gradients = nnx.value_and_grad(loss_of)(model)
    optimizer.update(model, gradients)
    return loss


for t in range(STEPS + 1):
    loss = step(model, optimizer)
    if t % 200 == 0:
        print(f"after {t:3} steps: mean squared error {loss:.2e}")
assert loss < 1e-2
