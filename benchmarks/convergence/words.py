"""Documents as bags of words, generated: 10,000 words that are as unequally frequent as words are, and two classes.

The word of rank k has a frequency proportional to 1/k (Zipf's law). A document has up to 100 different ones, 74 on
average, so a few words are in nearly every document and thousands in a handful. Each word speaks for one class with a
weight that is drawn once, the commonest 50 for none; the sum of the weights is the logit of the document's class,
which is drawn, so that no hyperplane separates the classes.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from training import Problem

WORDS, LENGTH, SILENT = 10_000, 100, 50


@functools.cache
def documents(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Words, `(number, 100)`, in which WORDS means none, and classes, 0 or 1."""
    generator = np.random.default_rng(0)
    frequency = 1 / np.arange(1, WORDS + 1)
    words = np.sort(generator.choice(WORDS, (number, LENGTH), p=frequency / frequency.sum()))
    words[:, 1:][words[:, 1:] == words[:, :-1]] = WORDS  # a word counts once
    weights = generator.normal(size=WORDS + 1) * (np.arange(WORDS + 1) >= SILENT)
    weights[WORDS] = 0
    probability = 1 / (1 + np.exp(-weights[words].sum(axis=1)))
    return words.astype(np.int32), (generator.random(number) < probability).astype(np.float32)


def sparse_logistic(number: int, dropout: float = 0.0) -> Problem:
    """Logistic regression on the documents, from zero; each word of a document is dropped with a probability."""
    words, classes = map(jnp.asarray, documents(number))

    def loss(params: Any, batch: Any, key: jax.Array) -> jax.Array:
        x, y = batch
        kept = (x < WORDS) * (jax.random.bernoulli(key, 1 - dropout, x.shape) / (1 - dropout) if dropout else 1.0)
        logits = jnp.sum(params["w"].at[x].get(mode="clip") * kept, axis=1) + params["b"]
        return optax.sigmoid_binary_cross_entropy(logits, y).mean()

    def batch(chosen: jax.Array) -> Any:
        return words[chosen], classes[chosen]

    def init(key: jax.Array) -> Any:
        return {"w": jnp.zeros(WORDS), "b": jnp.zeros(())}

    part = words[:5000], classes[:5000]  # of the training data, to evaluate the cost
    return Problem(init, number, batch, loss, lambda params: loss(params, part, jax.random.key(0)))
