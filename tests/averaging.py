"""What tests of averaged parameters share: runs, and means of their parameters in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.backends import jitted

ULP = 2.0**-23
SHAPES = {"dense/kernel": (40, 128), "dense/bias": (128,), "scale": ()}


def tree(seed, dtype="float32"):
    random = np.random.default_rng(seed)
    return {k: jnp.asarray(random.standard_normal(shape), dtype) for k, shape in SHAPES.items()}


def run(tx, steps, dtype="float32", way=jitted, read=lambda state, params: params):
    """Parameters and state after some steps, and what was read of both after each."""
    params, step, path = tree(0, dtype), way(tx), []
    state = tx.init(params)
    for t in range(steps):
        params, state = step(params, state, tree(t + 1, dtype))
        path.append(jax.tree.map(lambda p: np.asarray(p, np.float64), read(state, params)))
    return params, state, path


def mean(path, weights):
    """The mean of the parameters of each step with these weights."""
    total = sum(weights)
    return jax.tree.map(lambda *p: sum(w * x for w, x in zip(weights, p, strict=True)) / total, *path)


def exponential(d, n):
    """The weights of n steps."""
    return [d ** (n - 1 - i) for i in range(n)]


def assert_close(got, expected, ulps=8.0):
    """Within some units in the last place of the largest element of a leaf."""
    for a, b in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), b, rtol=0, atol=ulps * ULP * np.abs(b).max())
