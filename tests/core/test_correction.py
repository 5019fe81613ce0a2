import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.core.message import Weight, correct


def first_direction(stage, g=10.0, **arguments):
    tx = optax.chain(adamx.scale_by_moments(**arguments), stage)
    return tx.update(jnp.array([g]), tx.init(jnp.zeros(1)))[0]


def test_worked_example():
    # β1 = 0.2 and g = 10 give m = 8 and m̂ = 10; with √v̂ = 10 the direction is 1.
    np.testing.assert_allclose(first_direction(adamx.bias_correction(eps=0.0), b1=0.2), 1.0, rtol=1e-5)


def test_epsilon_stands_outside_the_root_and_eps_root_inside():
    np.testing.assert_allclose(first_direction(adamx.bias_correction(eps=10.0)), 0.5, rtol=1e-5)
    np.testing.assert_allclose(first_direction(adamx.bias_correction(eps_root=300.0)), 0.5, rtol=1e-5)


@pytest.mark.parametrize(("b1", "b2"), [(0.9, 0.999), (0.9, 0.9999), (0.0, 0.99)])
def test_the_first_uncorrected_step_is_wrong_by_the_known_factor(b1, b2):
    u = first_direction(adamx.uncorrected(eps=0.0), b1=b1, b2=b2)
    np.testing.assert_allclose(u, (1 - b1) / np.sqrt(1 - b2), rtol=1e-4)


@pytest.mark.parametrize("gradient", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_the_direction_has_the_dtype_of_the_gradient(gradient):
    tx = adamx.scale_by_adam()
    assert tx.update(jnp.ones(2, gradient), tx.init(jnp.zeros(2)))[0].dtype == gradient


@pytest.mark.parametrize("gradient", [jnp.float8_e4m3fn, jnp.float8_e5m2])
def test_float8_gradients_give_float32_directions(gradient):
    tx = adamx.scale_by_adam()
    u, _ = tx.update(jnp.ones(2, gradient), tx.init(jnp.zeros(2)))
    assert u.dtype == jnp.float32
    np.testing.assert_allclose(u, 1.0, rtol=1e-5)


def test_real_gradients_of_complex_parameters_give_complex_directions():
    tx = adamx.scale_by_adam()
    u, state = tx.update(jnp.ones(2), tx.init(jnp.zeros(2, jnp.complex64)))
    assert u.dtype == state.mu.dtype == jnp.complex64
    np.testing.assert_allclose(u, 1.0, rtol=1e-5)


@pytest.mark.parametrize("c", [1e-6, 1.0, 1e6])
def test_without_epsilon_the_direction_is_scale_invariant(c):
    np.testing.assert_allclose(first_direction(adamx.bias_correction(eps=0.0), g=c), 1.0, rtol=1e-5)


def test_a_moment_that_says_it_is_corrected_is_left_alone():
    assert correct(jnp.float32(3), 1.0) == 3
    np.testing.assert_allclose(correct(jnp.float32(3), Weight(0.5, jnp.int32(1))), 6)
    np.testing.assert_allclose(correct(jnp.float32(3), Weight(0.5, jnp.int32(1), precise=True)), 6)
