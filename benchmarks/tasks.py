"""Small things to learn: handwritten digits, a curve, and the text of Python's own documentation by characters.

A task is `init(key)`, parameters in float32; `loss(params, batch)`; and `batch(key)`, drawn for training. Digits
and characters smooth their labels, so that losses end well above zero and two runs can be compared to a per cent.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

Params = dict[str, Any]
SMOOTHING = 0.1
HEADS, CONTEXT = 4, 64


class Task(NamedTuple):
    """What is learned.

    Attributes:
        init: from a key to float32 parameters.
        loss: of parameters on a batch, computed in float32.
        batch: from a key to a batch of the training data.
        test: a fixed batch of the test data.
    """

    init: Callable[[jax.Array], Params]
    loss: Callable[[Params, Any], jax.Array]
    batch: Callable[[jax.Array], Any]
    test: Any


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    smoothed = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), SMOOTHING)
    return optax.softmax_cross_entropy(logits, smoothed).mean()


def dense(key: jax.Array, *shape: int) -> jax.Array:
    return jax.random.normal(key, shape) / np.sqrt(shape[-2])


def digits() -> Task:
    """A perceptron, 64 pixels to 128 to 128 to 10 classes, on 1,347 images; 450 are held out."""
    from sklearn.datasets import load_digits  # noqa: PLC0415

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    data = jnp.asarray(images[order] / 16, jnp.float32), jnp.asarray(labels[order])
    train, test = ([a[part] for a in data] for part in (slice(450, None), slice(450)))

    def init(key: jax.Array) -> Params:
        keys = jax.random.split(key, 3)
        sizes = (64, 128, 128, 10)
        pairs = zip(keys, sizes[:-1], sizes[1:], strict=True)
        return {f"layer_{i}": {"w": dense(k, n, m), "b": jnp.zeros(m)} for i, (k, n, m) in enumerate(pairs)}

    def loss(params: Params, batch: Any) -> jax.Array:
        x, labels = batch
        for i in range(3):
            layer = params[f"layer_{i}"]
            x = x @ layer["w"] + layer["b"]
            x = jax.nn.gelu(x) if i < 2 else x
        return cross_entropy(x, labels)

    def batch(key: jax.Array) -> Any:
        chosen = jax.random.randint(key, (64,), 0, len(train[1]))
        return train[0][chosen], train[1][chosen]

    return Task(init, loss, batch, tuple(test))


def convolutional(task: Task) -> Task:
    """Digits for two convolutions and two linear layers, as in examples/train_digits.py."""

    def init(key: jax.Array) -> Any:
        keys = jax.random.split(key, 4)
        kernels = [
            jax.random.normal(k, shape) / 10 for k, shape in zip(keys[:2], ((3, 3, 1, 32), (3, 3, 32, 64)), strict=True)
        ]
        return {"conv": kernels, "in": dense(keys[2], 256, 128), "out": dense(keys[3], 128, 10)}

    def loss(params: Any, batch: Any) -> jax.Array:
        x, labels = batch[0].reshape(-1, 8, 8, 1), batch[1]
        for kernel in params["conv"]:
            form = ("NHWC", "HWIO", "NHWC")
            x = jax.nn.relu(jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=form))
        logits = jax.nn.relu(x.reshape(len(x), -1) @ params["in"]) @ params["out"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return task._replace(init=init, loss=loss)


def curve() -> Task:
    """A wave learned by heart, always all of it, by a network of two hidden layers: from 0.5 down to 1e-5."""
    x = jnp.linspace(-1, 1, 128)[:, None]
    y, sizes = jnp.sin(3 * jnp.pi * x), (1, 64, 64, 1)

    def init(key: jax.Array) -> Any:
        pairs = zip(jax.random.split(key, 3), sizes[:-1], sizes[1:], strict=True)
        return {f"layer_{i}": {"w": dense(k, n, m), "b": jnp.zeros(m)} for i, (k, n, m) in enumerate(pairs)}

    def loss(params: Any, batch: Any) -> jax.Array:
        hidden = jnp.tanh(3 * x @ params["layer_0"]["w"] + params["layer_0"]["b"])
        hidden = jnp.tanh(hidden @ params["layer_1"]["w"] + params["layer_1"]["b"])
        return jnp.mean((hidden @ params["layer_2"]["w"] + params["layer_2"]["b"] - y) ** 2)

    return Task(init, loss, lambda _: None, None)


@functools.cache
def text() -> np.ndarray:
    """The topics of `help()`, as ASCII codes."""
    from pydoc_data.topics import topics  # noqa: PLC0415

    return np.frombuffer("\n".join(topics[name] for name in sorted(topics)).encode("ascii", "ignore"), np.uint8)


def characters(width: int = 64, layers: int = 2) -> Task:
    """A transformer that predicts the next character; the last tenth of the text is held out."""
    codes = jnp.asarray(text() % 128)
    split = len(codes) * 9 // 10

    def init(key: jax.Array) -> Params:
        keys = iter(jax.random.split(key, 2 + 4 * layers))
        params: Params = {
            "embedding": 0.02 * jax.random.normal(next(keys), (128, width)),
            "position": 0.02 * jax.random.normal(next(keys), (CONTEXT, width)),
        }
        for i in range(layers):
            params[f"block_{i}"] = {
                "attention": {"in": dense(next(keys), width, 3 * width), "out": dense(next(keys), width, width)},
                "mlp": {"in": dense(next(keys), width, 4 * width), "out": dense(next(keys), 4 * width, width)},
                "norm_1": jnp.ones(width),
                "norm_2": jnp.ones(width),
            }
        return params

    def normed(x: jax.Array, scale: jax.Array) -> jax.Array:
        return scale * x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)

    def attention(p: Params, x: jax.Array) -> jax.Array:
        q, k, v = (a.reshape(*x.shape[:-1], HEADS, -1) for a in jnp.split(x @ p["in"], 3, axis=-1))
        return jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape) @ p["out"]

    def loss(params: Params, batch: Any) -> jax.Array:
        x = params["embedding"][batch[:, :-1]] + params["position"]
        for i in range(layers):
            p = params[f"block_{i}"]
            x = x + attention(p["attention"], normed(x, p["norm_1"]))
            x = x + jax.nn.gelu(normed(x, p["norm_2"]) @ p["mlp"]["in"]) @ p["mlp"]["out"]
        return cross_entropy(normed(x, 1.0) @ params["embedding"].T, batch[:, 1:])

    def windows(starts: jax.Array) -> jax.Array:
        return codes[starts[:, None] + jnp.arange(CONTEXT + 1)].astype(jnp.int32)

    def batch(key: jax.Array) -> jax.Array:
        return windows(jax.random.randint(key, (16,), 0, split - CONTEXT - 1))

    test = windows(jnp.linspace(split, len(codes) - CONTEXT - 1, 128).astype(jnp.int32))
    return Task(init, loss, batch, test)
