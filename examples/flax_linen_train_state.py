"""Flax Linen: adamx.flax.TrainState with batch norm, clipping and a schedule, on handwritten digits.

python examples/flax_linen_train_state.py
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import adamx
import adamx.flax


class Network(nn.Module):
    """One hidden layer with a batch norm."""

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Logits of shape (n, 10)."""
        hidden = nn.BatchNorm(use_running_average=not train)(nn.Dense(128)(images))
        return nn.Dense(10)(nn.relu(hidden))


class TrainState(adamx.flax.TrainState):
    """With the statistics of the batch norm."""

    batch_stats: Any


@jax.jit
def step(state: TrainState, images: jax.Array, labels: jax.Array) -> tuple[TrainState, jax.Array]:
    def loss_of(params) -> tuple[jax.Array, Any]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, updated = state.apply_fn(variables, images, train=True, mutable="batch_stats")
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, updated["batch_stats"]

    (loss, statistics), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    return state.apply_gradients(grads=gradients, batch_stats=statistics), loss


@jax.jit
def accuracy_of(state: TrainState, images: jax.Array, labels: jax.Array) -> jax.Array:
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return jnp.mean(state.apply_fn(variables, images, train=False).argmax(axis=-1) == labels)


images, labels = load_digits(return_X_y=True)
split = train_test_split(images / 16, labels, test_size=0.25, stratify=labels, random_state=0)
train_images, test_images, train_labels, test_labels = map(jnp.asarray, split)

network = Network()
schedule = optax.warmup_cosine_decay_schedule(0.0, 3e-3, warmup_steps=20, decay_steps=200)
mask = adamx.not_matching("bias$", "BatchNorm")
optimizer = adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adamw(schedule, weight_decay=0.01, mask=mask))
variables = network.init(jax.random.key(0), train_images, train=True)
state = TrainState.create(apply_fn=network.apply, tx=optimizer, **variables)
print(adamx.explain(optimizer, state.params))

for epoch in range(10):
    order = jax.random.permutation(jax.random.key(epoch), len(train_labels))
    for chosen in jnp.split(order[:1280], 20):
        state, loss = step(state, train_images[chosen], train_labels[chosen])
    accuracy = accuracy_of(state, test_images, test_labels)
    print(f"epoch {epoch + 1:2}, step {int(state.step):3}: loss {loss:.4f}, test accuracy {accuracy:.2%}")
assert accuracy > 0.95
