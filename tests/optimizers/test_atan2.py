import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx

ULP = 2.0**-23


def oracle(theta, gradients, alpha, beta1=0.9, beta2=0.999, a=1.27, b=1.0, lam=0.0):
    """Adam-atan2 as the paper has it: Algorithm 1 of Adam with the angle in line 11, in float64."""
    m, v, path = np.zeros_like(theta), np.zeros_like(theta), []
    for t, g in enumerate(gradients, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        u = a * np.arctan2(m / (1 - beta1**t), b * np.sqrt(v / (1 - beta2**t)))
        theta = theta - alpha * (u + lam * theta)
        path.append(theta)
    return np.stack(path)


SETTINGS = {
    "adam_atan2": ({}, {}),
    "adam_atan2 a b": ({"a": 2.0, "b": 0.5, "b1": 0.8}, {"a": 2.0, "b": 0.5, "beta1": 0.8}),
    "adamw_atan2": ({"weight_decay": 0.1}, {"lam": 0.1}),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_float64_is_the_paper(name, x64, noise, run):
    arguments, letters = SETTINGS[name]
    g, theta = noise(0), np.linspace(-1, 1, 24)
    _, path = run(getattr(adamx, name.split()[0])(0.01, **arguments), jnp.asarray(g), jnp.asarray(theta))
    np.testing.assert_allclose(path, oracle(theta, g, 0.01, **letters), rtol=0, atol=1e-12)


def test_float32_is_the_paper(noise, run):
    # 1 - b2**t is off by half a unit of 1, of itself up to 2^-24 / (1 - b2), of which the root and the angle take half;
    # the rest is a few roundings of terms that are at most the angle's largest, 2.
    g = noise(0)
    updates, _ = run(adamx.adam_atan2(1.0), jnp.asarray(g, jnp.float32), jnp.zeros(24))
    exact = np.diff(oracle(np.zeros(24), g, 1.0), axis=0, prepend=0.0)
    np.testing.assert_allclose(updates, exact, rtol=2.0**-24 / 0.001, atol=16 * ULP)


@pytest.mark.parametrize("exponent", [-20, -1, 20])
def test_a_power_of_two_on_the_gradients_changes_no_bit(exponent, noise, run):
    g = jnp.asarray(noise(1), jnp.float32)
    a, b = (run(adamx.adam_atan2(0.01), x, jnp.zeros(24))[0] for x in (g, g * 2.0**exponent))
    np.testing.assert_array_equal(a, b)
    assert float(jnp.abs(a).max()) > 0.009


def test_any_other_factor_changes_the_last_bits(noise, run):
    # m and v carry half a unit for every step that they remember: 10 and, of its root, 1000 / 2 at random signs.
    g = noise(2)
    a, b = (run(adamx.adam_atan2(1.0), jnp.asarray(x, jnp.float32), jnp.zeros(24))[0] for x in (g, g * 1e-3))
    np.testing.assert_allclose(a, b, atol=32 * ULP)


def test_gradients_far_below_the_epsilon_of_adam_make_whole_steps(run):
    g = jnp.full((5, 1), 1e-15)
    np.testing.assert_allclose(run(adamx.adam_atan2(1.0), g, jnp.zeros(1))[0], -1.27 * np.pi / 4, rtol=1e-4)
    assert float(jnp.abs(run(adamx.adam(1.0), g, jnp.zeros(1))[0]).max()) < 1e-6


def test_no_step_is_longer_than_half_a_turn(run):
    g = jnp.zeros((40, 1)).at[20].set(1e3).at[21:].set(-1e-3)
    updates, _ = run(adamx.adam_atan2(1.0, b1=0.99, b2=0.5), g, jnp.zeros(1))
    assert 1.5 < float(jnp.abs(updates).max()) <= 1.27 * np.pi / 2 * (1 + ULP)


@pytest.mark.slow
def test_the_derivative_is_that_of_the_angle_at_every_scale():
    def slope(y, x):
        return jax.grad(lambda y: adamx.optimizers.atan2.angle(y, x))(y)

    for scale in (1.0, 1e-25, 1e25):  # at the last two the squares of a plain atan2 vanish and overflow
        np.testing.assert_allclose(slope(jnp.float32(scale), jnp.float32(scale)) * scale, 0.5, rtol=4 * ULP)
    assert slope(jnp.float32(0), jnp.float32(0)) == 1.0
    np.testing.assert_allclose(jax.grad(adamx.optimizers.atan2.angle, 1)(1.0, 2.0), -0.2, rtol=4 * ULP)


def test_by_hand_with_other_stages(run):
    stages = (
        adamx.scale_by_moments(),
        adamx.nesterov(),
        adamx.optimizers.running_max(),
        adamx.optimizers.atan2_correction(a=4 / np.pi),
    )
    tx = optax.chain(*stages, optax.clip(0.5), adamx.scale_by_lr(1.0))
    updates, _ = run(tx, jnp.ones((3, 2)), jnp.zeros(2))
    np.testing.assert_array_equal(updates, -0.5)


def test_errors():
    tx = adamx.optimizers.atan2_correction()
    with pytest.raises(TypeError, match=r"atan2_correction\(\), adamx\.scale_by_lr"):
        tx.update(jnp.ones(1), tx.init(jnp.ones(1)))
    with pytest.raises(ValueError, match="a must be a finite number of at least 0, got nan"):
        adamx.optimizers.atan2_correction(a=float("nan"))
    with pytest.raises(TypeError, match="b must be a real number, got 'x'"):
        adamx.adam_atan2(0.1, b="x")
    with pytest.raises(TypeError, match="for real parameters"):
        adamx.adam_atan2(0.1).update(jnp.ones(1, complex), adamx.adam_atan2(0.1).init(jnp.ones(1, complex)))


def test_complex_parameters_the_way_that_the_error_says():
    tx = optax.contrib.split_real_and_imaginary(adamx.adam_atan2(0.1))
    g = jnp.asarray([3 - 4j])
    u, _ = tx.update(g, tx.init(g))
    np.testing.assert_allclose(u, [-0.1 * 1.27 * np.pi / 4 * (1 - 1j)], rtol=1e-4)
