"""The paper's models on scikit-learn's handwritten digits: 8 by 8 pixels, 1,797 images, 10 classes.

1,347 images are trained on, in minibatches; the others are held out and play no part in the comparisons, which are of
training costs, as in the paper.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from training import Problem

Model = Callable[[Any, jax.Array, jax.Array], jax.Array]
"""From parameters, images and a key for noise to logits."""


@functools.cache
def digits(part: slice = slice(450, None)) -> tuple[np.ndarray, np.ndarray]:
    """Images, `(n, 64)` in [0, 1], and labels; by default those that are trained on."""
    from sklearn.datasets import load_digits  # noqa: PLC0415

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))[part]
    return (images[order] / 16).astype(np.float32), labels[order]


def dense(key: jax.Array, inputs: int, outputs: int) -> dict[str, jax.Array]:
    """A layer's weights, He's normal initialization, and biases of 0."""
    return {"w": jax.random.normal(key, (inputs, outputs)) * np.sqrt(2 / inputs), "b": jnp.zeros(outputs)}


def apply(layer: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x @ layer["w"] + layer["b"]


def dropped(key: jax.Array, x: jax.Array, rate: float) -> jax.Array:
    """Each number is zero with probability `rate`; the others grow so that the mean stays."""
    return x * jax.random.bernoulli(key, 1 - rate, x.shape) / (1 - rate) if rate else x


def classifier(init: Callable[[jax.Array], Any], model: Model, penalty: float = 0.0) -> Problem:
    """Cross entropy on the digits, and half the penalty times the squares of all parameters."""
    images, labels = map(jnp.asarray, digits())

    def loss(params: Any, batch: Any, key: jax.Array) -> jax.Array:
        x, y = batch
        entropy = optax.softmax_cross_entropy_with_integer_labels(model(params, x, key), y).mean()
        return entropy + penalty / 2 * sum(jnp.sum(p**2) for p in jax.tree.leaves(params))

    def batch(chosen: jax.Array) -> Any:
        return images[chosen], labels[chosen]

    return Problem(init, len(labels), batch, loss, lambda params: loss(params, (images, labels), jax.random.key(0)))


def logistic(penalty: float = 1e-3) -> Problem:
    """Multiclass logistic regression, from zero."""
    zeros = {"w": jnp.zeros((64, 10)), "b": jnp.zeros(10)}
    return classifier(lambda _: zeros, lambda params, x, _: apply(params, x), penalty)


def perceptron(hidden: int = 64, dropout: float = 0.0, penalty: float = 0.0) -> Problem:
    """Two hidden layers of rectified linear units, with dropout after each."""

    def init(key: jax.Array) -> Any:
        sizes = itertools.pairwise((64, hidden, hidden, 10))
        return [dense(k, *size) for k, size in zip(jax.random.split(key, 3), sizes, strict=True)]

    def model(params: Any, x: jax.Array, key: jax.Array) -> jax.Array:
        for layer, k in zip(params[:-1], jax.random.split(key), strict=True):
            x = dropped(k, jax.nn.relu(apply(layer, x)), dropout)
        return apply(params[-1], x)

    return classifier(init, model, penalty)


def patches(x: jax.Array) -> jax.Array:
    """The 3 by 3 neighbourhood of every second pixel as channels: a convolution of stride 2 is a product with it."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, i : i + height : 2, j : j + width : 2] for i in range(3) for j in range(3)]
    return jnp.concatenate(shifted, axis=-1)


def convolutional(channels: tuple[int, int] = (16, 32), hidden: int = 64) -> Problem:
    """Two 3 by 3 convolutions of stride 2, then one hidden layer, all with rectified linear units."""
    first, second = channels
    sizes = ((9, first), (9 * first, second), (4 * second, hidden), (hidden, 10))

    def init(key: jax.Array) -> Any:
        return [dense(k, *size) for k, size in zip(jax.random.split(key, 4), sizes, strict=True)]

    def model(params: Any, x: jax.Array, key: jax.Array) -> jax.Array:
        x = x.reshape(-1, 8, 8, 1)
        for layer in params[:2]:
            x = jax.nn.relu(apply(layer, patches(x)))
        return apply(params[3], jax.nn.relu(apply(params[2], x.reshape(len(x), -1))))

    return classifier(init, model)
