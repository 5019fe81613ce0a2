import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.core.message import Weight, correct
from adamx.core.stages import between, quotient
from adamx.testing import assert_equivalent

PARAMS = {"w": jnp.ones((3, 5)), "b": jnp.ones(2, jnp.bfloat16)}
GRADIENTS = [jax.tree.map(lambda p, t=t: jnp.cos(t + p).astype(p.dtype), PARAMS) for t in range(5)]


def chain(*stages):
    return optax.chain(adamx.scale_by_moments(), *stages, adamx.scale_by_lr(0.1))


def test_a_stage_that_changes_nothing_changes_nothing():
    nothing = between("nothing()", lambda moments: moments)
    assert_equivalent(
        chain(nothing, adamx.bias_correction()), chain(adamx.bias_correction()), PARAMS, GRADIENTS, names=("a", "b")
    )


def test_the_quotient_of_adam_is_stage_2():
    own = quotient("own()", lambda m_hat, v_hat: m_hat / (jnp.sqrt(v_hat) + 1e-8))
    assert_equivalent(chain(own), chain(adamx.bias_correction()), PARAMS, GRADIENTS, names=("own", "adamx"))


def test_what_is_corrected_already_is_not_corrected_again():
    moments, _ = adamx.scale_by_moments().update(GRADIENTS[0], adamx.scale_by_moments().init(PARAMS))
    np.testing.assert_allclose(moments.m_hat()["w"], moments.mu["w"] / 0.1, rtol=1e-6)
    np.testing.assert_allclose(moments.v_hat()["w"], moments.nu["w"] / 0.001, rtol=1e-4)
    assert moments.replace(m_hat=moments.mu).m_hat() is moments.mu
    assert moments.replace(v_hat=moments.nu).v_hat() is moments.nu
    assert moments.replace(m_hat=moments.mu).nu_weight is moments.nu_weight


def test_a_quotient_gets_what_is_given_for_all_leaves():
    scaled = quotient("scaled()", lambda m_hat, v_hat, t: m_hat * t, given=lambda moments: (moments.count * 2.0,))
    u, _ = optax.chain(adamx.scale_by_moments(b1=0.0), scaled).update(
        GRADIENTS[1], optax.chain(adamx.scale_by_moments(b1=0.0), scaled).init(PARAMS)
    )
    np.testing.assert_allclose(u["w"], 2 * GRADIENTS[1]["w"], rtol=1e-6)
    assert u["b"].dtype == jnp.bfloat16


@pytest.mark.parametrize("stage", [between("own()", lambda m: m), quotient("own()", lambda m, v: m)])
def test_another_input_is_told_which_stage_comes_before(stage):
    with pytest.raises(TypeError, match=r"own\(\) takes the Moments that scale_by_moments emits, got dict"):
        stage.update(GRADIENTS[0], stage.init(PARAMS))


def test_a_stage_for_squares_refuses_the_largest_gradients():
    largest = adamx.optimizers.scale_by_infinity_moments()
    stages = between("own()", lambda m: m, adamx.Moments), quotient("own()", lambda m, v: m)
    for stage in stages:
        moments, _ = largest.update(GRADIENTS[0], largest.init(PARAMS))
        with pytest.raises(TypeError, match=r"own\(\) takes a v that averages squares.*put divide_by_infinity_norm"):
            stage.update(moments, stage.init(PARAMS))


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
