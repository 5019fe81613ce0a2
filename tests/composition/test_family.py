"""Every optimizer of the family under what optax and JAX wrap around it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.family import ULP, each, normal


@each
def test_injected_hyperparameters(entry):
    tx, plain, params, g = optax.inject_hyperparams(entry.make)(0.5), entry.make(0.5), jnp.ones(4), normal(1, 4)
    step, state = jax.jit(tx.update), tx.init(params)
    updates, _ = step(g, state, params)
    np.testing.assert_allclose(updates, plain.update(g, plain.init(params), params)[0], rtol=64 * ULP)
    state.hyperparams["learning_rate"] = jnp.float32(1.0)
    np.testing.assert_array_equal(step(g, state, params)[0], 2 * updates)


@each
def test_masked_steps_its_leaves_alone(entry):
    params = {"a": jnp.ones(3), "b": jnp.ones(2)}
    tx, alone = optax.masked(entry.make(0.1), {"a": True, "b": False}), entry.make(0.1)
    updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
    expected, _ = jax.jit(alone.update)(params["a"], alone.init(params["a"]), params["a"])
    np.testing.assert_allclose(updates["a"], expected, rtol=4 * ULP)
    np.testing.assert_array_equal(updates["b"], params["b"])


@pytest.mark.slow
@each
def test_multi_steps_takes_the_average(entry):
    tx, params, mean = entry.make(0.1), jnp.ones(3), jnp.asarray([1.0, -2.0, 4.0])
    accumulated = optax.MultiSteps(tx, 2).gradient_transformation()
    step = jax.jit(accumulated.update)
    first, state = step(mean + 0.25, accumulated.init(params), params)
    second, _ = step(mean - 0.25, state, params)
    np.testing.assert_array_equal(first, 0.0)
    np.testing.assert_allclose(second, tx.update(mean, tx.init(params), params)[0], rtol=64 * ULP)


@each
def test_mapped_over_the_rate(entry):
    g, params = normal(2, 4), jnp.zeros(4)

    def first(rate):
        tx = entry.make(rate)
        return tx.update(g, tx.init(params), params)[0]

    swept = jax.jit(jax.vmap(first))(jnp.asarray([0.5, 1.0, 2.0]))
    np.testing.assert_array_equal(swept, swept[1] * jnp.asarray([[0.5], [1.0], [2.0]]))
    np.testing.assert_allclose(swept[1], first(1.0), rtol=64 * ULP)
