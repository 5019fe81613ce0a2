"""What the tests of hyperparameters that are arrays share: values, counters, and Algorithm 1 in float64."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from tests.family import ULP, normal

MAKERS = {name: getattr(adamx, name) for name in ("adam", "adamw", "nadamw", "adabelief")}
ADAMS = {name: MAKERS[name] for name in ("adam", "adamw")}
each = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
each_adam = pytest.mark.parametrize("make", ADAMS.values(), ids=ADAMS)

PARAMS = {"w": normal(0, 6, 5), "b": normal(1, 5)}
# float32 holds all of them, and 1-β: as constants and as arrays they are the same numbers.
FIRST = {"learning_rate": 0.5, "b1": 0.875, "b2": 1 - 2**-7, "eps": 2**-10, "eps_root": 2**-12, "weight_decay": 0.25}
LATER = {"learning_rate": 0.125, "b1": 0.5, "b2": 1 - 2**-9, "eps": 0.25, "eps_root": 0.5, "weight_decay": 2.0}
SAME_FORMULA = 16 * ULP
"""Constants are folded and contracted otherwise than arrays: a few roundings in the terms of a sum."""


IN_FLOAT32 = 2.0**-24 / (1 - 0.999)
"""How far 1-β2 moves when the default β2 is an array: a distance of float32 numbers below 1, of which half is lost."""


def against_float64(b2):
    """1-β2^t is wrong by a unit of 1 where it is least, 1-β2; a root halves that; and 32 roundings."""
    return (0.5 / (1 - b2) + 32) * ULP


def accepted(make, values):
    return {name: value for name, value in values.items() if name in inspect.signature(make).parameters}


def gradients(t):
    return {"w": normal(100 + t, 6, 5), "b": normal(200 + t, 5)}


def with_values(state, **values):
    """The state of `inject_hyperparams` with other hyperparameters, of the types that it holds."""
    arrays = {name: jnp.asarray(value, jnp.float32) for name, value in values.items()}
    return state._replace(hyperparams=state.hyperparams | arrays)


def counted(function):
    """A compiled function, and a list that grows whenever it is traced."""
    traces = []

    @jax.jit
    def compiled(*arguments):
        traces.append(arguments)
        return function(*arguments)

    return compiled, traces


def close(got, expected, rtol, scale=1.0):
    """Within rtol of each number and, where terms of a sum cancel, of their size."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale), got, expected)


def reference(stream, settings, params):
    """Algorithm 1 in float64 on one array, with the hyperparameters of each step: its updates, θ held still."""
    m, v, updates = 0.0, 0.0, []
    theta = np.asarray(params, np.float64)
    for t, (g, now) in enumerate(zip(stream, settings, strict=True), start=1):
        alpha, b1, b2, eps, eps_root, lam = (float(now.get(name, 0.0)) for name in FIRST)
        wide = np.asarray(g, np.float64)
        m, v = b1 * m + (1 - b1) * wide, b2 * v + (1 - b2) * wide * wide
        direction = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)
        updates.append(-alpha * (direction + lam * theta))
    return updates
