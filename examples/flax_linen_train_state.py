"""Flax Linen: adamx.adamw in a TrainState, on handwritten digits.

python examples/flax_linen_train_state.py
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import adamx


class Network(nn.Module):
    """One hidden layer."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits of shape (n, 10)."""
        return nn.Dense(10)(nn.relu(nn.Dense(128)(images)))


@jax.jit
def step(state: TrainState, images: jax.Array, labels: jax.Array) -> tuple[TrainState, jax.Array]:
    def loss_of(params) -> jax.Array:
        logits = state.apply_fn({"params": params}, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    loss, gradients = jax.value_and_grad(loss_of)(state.params)
    return state.apply_gradients(grads=gradients), loss


@jax.jit
def accuracy_of(state: TrainState, images: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.mean(state.apply_fn({"params": state.params}, images).argmax(axis=-1) == labels)


images, labels = load_digits(return_X_y=True)
split = train_test_split(images / 16, labels, test_size=0.25, stratify=labels, random_state=0)
train_images, test_images, train_labels, test_labels = map(jnp.asarray, split)

network = Network()
params = network.init(jax.random.key(0), train_images)["params"]
optimizer = adamx.adamw(3e-3, weight_decay=0.01)
state = TrainState.create(apply_fn=network.apply, params=params, tx=optimizer)

for epoch in range(10):
    order = jax.random.permutation(jax.random.key(epoch), len(train_labels))
    for chosen in jnp.split(order[:1280], 20):
        state, loss = step(state, train_images[chosen], train_labels[chosen])
    accuracy = accuracy_of(state, test_images, test_labels)
    print(f"epoch {epoch + 1:2}, step {int(state.step):3}: loss {loss:.4f}, test accuracy {accuracy:.2%}")
assert accuracy > 0.95
