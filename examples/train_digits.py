"""Trains a Flax NNX network on handwritten digits with adamx.adamw, then again with optax.adamw: the same bits.

    python examples/train_digits.py [--steps 600] [--seed 0] [--out digits.png]

One program runs twice, with nothing but the optimizer exchanged. It ends with the largest difference between the two
sets of trained parameters, which is 0, and a picture of both runs. The data come with scikit-learn. The exit code is 1
if the parameters differ at all, or if a run of full length stays below 97 % on the test images.
"""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

STEPS = 600
BATCH_SIZE = 128
PEAK_LEARNING_RATE = 3e-3
REQUIRED_ACCURACY = 0.97


class Digits(NamedTuple):
    """Images of shape (n, 8, 8, 1) between 0 and 1, and labels of shape (n,)."""

    train_images: np.ndarray
    test_images: np.ndarray
    train_labels: np.ndarray
    test_labels: np.ndarray


class Run(NamedTuple):
    """What one training leaves behind."""

    params: nnx.State
    losses: list[float]
    accuracies: dict[int, float]  # steps taken -> share of test images that are right
    milliseconds: float  # median over the steps


class Network(nnx.Module):
    """Two convolutions and a linear layer, 31 thousand parameters."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(1, 32, kernel_size=(3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(32, 64, kernel_size=(3, 3), strides=2, rngs=rngs)
        self.linear = nnx.Linear(4 * 4 * 64, 10, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits of shape (n, 10)."""
        x = nnx.relu(self.conv1(images))
        x = nnx.relu(self.conv2(x))
        return self.linear(x.reshape(len(x), -1))


def load(seed: int) -> Digits:
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    return Digits(*train_test_split(images, labels, test_size=0.25, stratify=labels, random_state=seed))


def batches(digits: Digits, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Epoch after epoch in a new order, without end; what is left over at an epoch's end is dropped."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(digits.train_labels))
        for start in range(0, len(order) - BATCH_SIZE + 1, BATCH_SIZE):
            chosen = order[start : start + BATCH_SIZE]
            yield digits.train_images[chosen], digits.train_labels[chosen]


def learning_rate(steps: int) -> optax.Schedule:
    return optax.warmup_cosine_decay_schedule(
        0.0, PEAK_LEARNING_RATE, warmup_steps=max(1, steps // 10), decay_steps=steps
    )


def kernels_only(params: nnx.State) -> nnx.State:
    """The mask of the weight decay: biases are left alone."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def train(name: str, adamw: Callable[..., optax.GradientTransformation], digits: Digits, steps: int, seed: int) -> Run:
    """The program that runs twice; `adamw` is all that differs."""
    network, params = nnx.split(Network(nnx.Rngs(seed)))
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        adamw(learning_rate(steps), weight_decay=1e-2, mask=kernels_only),
    )
    opt_state = optimizer.init(params)

    def loss_of(params: nnx.State, images: jax.Array, labels: jax.Array) -> jax.Array:
        logits = nnx.merge(network, params)(images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def step(params: nnx.State, opt_state: optax.OptState, images: jax.Array, labels: jax.Array):
        loss, gradients = jax.value_and_grad(loss_of)(params, images, labels)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    @jax.jit
    def accuracy_of(params: nnx.State) -> jax.Array:
        guesses = nnx.merge(network, params)(digits.test_images).argmax(axis=-1)
        return jnp.mean(guesses == digits.test_labels)

    losses, seconds, accuracies = [], [], {0: float(accuracy_of(params))}
    stream = batches(digits, seed)
    bar = tqdm(range(1, steps + 1), desc=name, unit="step")
    for t in bar:
        images, labels = next(stream)
        start = time.perf_counter()
        params, opt_state, loss = jax.block_until_ready(step(params, opt_state, images, labels))
        seconds.append(time.perf_counter() - start)
        losses.append(float(loss))
        if t % 20 == 0 or t == steps:
            accuracies[t] = float(accuracy_of(params))
        bar.set_postfix(loss=f"{losses[-1]:.4f}", accuracy=f"{list(accuracies.values())[-1]:.2%}", refresh=False)
    return Run(params, losses, accuracies, 1e3 * float(np.median(seconds)))


def largest_difference(a: nnx.State, b: nnx.State) -> float:
    """NaN, which is not 0 either, if there is one in any leaf."""
    return float(np.max([jnp.max(jnp.abs(x - y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)]))
