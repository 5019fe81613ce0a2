"""Flax NNX: adamx.flax.Optimizer, with clipping, a schedule, and weight decay on kernels alone.

python examples/flax_nnx_optimizer.py
"""

import jax.numpy as jnp
import optax
from flax import nnx

import adamx
import adamx.flax

STEPS = 600


class Network(nnx.Module):
    """Two linear layers with a batch norm between them."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Linear(1, 64, rngs=rngs)
        self.norm = nnx.BatchNorm(64, rngs=rngs)
        self.last = nnx.Linear(64, 1, rngs=rngs)

    def __call__(self, x):  # noqa: D102
        return self.last(self.norm(jnp.tanh(self.first(x))))


x = jnp.linspace(-1, 1, 200)[:, None]
y = jnp.sin(3 * x)
model = Network(nnx.Rngs(0))
schedule = optax.warmup_cosine_decay_schedule(0.0, 1e-2, warmup_steps=50, decay_steps=STEPS)
mask = adamx.not_matching("bias$", "^norm/")
tx = adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adamw(schedule, weight_decay=1e-3, mask=mask))
optimizer = adamx.flax.Optimizer(model, tx, wrt=nnx.Param)
print(adamx.explain(tx, nnx.state(model, nnx.Param)))


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
