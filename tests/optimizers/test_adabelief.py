import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx


def run(tx, gradients):
    """All updates and the last state."""

    def step(state, g):
        u, state = tx.update(g, state)
        return state, u

    return jax.jit(lambda s, g: jax.lax.scan(step, s, g)[::-1])(tx.init(jnp.zeros_like(gradients[0])), gradients)


def exact(gradients, b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-16):
    """Algorithm 2 of the paper in float64: the updates, and s."""
    m, s, found = 0.0, 0.0, []
    for t, g in enumerate(np.asarray(gradients, np.float64), start=1):
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * (g - m) ** 2 + eps_root
        found.append(m / (1 - b1**t) / (np.sqrt(s / (1 - b2**t)) + eps))
    return np.stack(found), s


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("precise", [False, True])
def test_is_algorithm_2_of_the_paper(precise):
    g = normal(200, 5)
    found, state = run(adamx.optimizers.scale_by_belief(precise=precise), g)
    u, s = exact(g)
    # without precise, 1 - 0.999^t and 1 - 0.999 in float32 are off by 1e-5 together
    np.testing.assert_allclose(found, u, rtol=4e-6 if precise else 2e-5, atol=2e-6)
    np.testing.assert_allclose(state.nu, s, rtol=2e-6 if precise else 2e-5)


@pytest.mark.slow
def test_believes_in_what_it_has_predicted():
    # A gradient that hardly changes makes longer steps than Adam's, one that alternates shorter ones: the standard
    # deviation of ± 1 around a mean of 1/10 is 1, as its root mean square is.
    steady = 1 + 0.01 * normal(400, 3)
    alternating = 1 + 10 * jnp.where(jnp.arange(400)[:, None] % 2 == 0, 1.0, -1.0)
    size = lambda make, g: float(jnp.abs(run(make(), g)[0][-1]).mean())
    assert size(adamx.optimizers.scale_by_belief, steady) > 10 * size(adamx.scale_by_adam, steady)
    assert size(adamx.optimizers.scale_by_belief, alternating) < 1.2 * size(adamx.scale_by_adam, alternating)


def test_without_momentum_only_epsilon_is_left():
    g = normal(5, 4)
    _, state = run(adamx.optimizers.scale_by_belief(b1=0.0, b2=0.5, eps_root=0.25), g)
    np.testing.assert_array_equal(state.nu, 0.25 * (2 - 0.5**4))  # m is g, and g - m nothing


def test_epsilon_stays_in_the_average():
    _, state = run(adamx.optimizers.scale_by_belief(b2=0.9, eps_root=1e-3), jnp.zeros((300, 2)))
    np.testing.assert_allclose(state.nu, 1e-3 / (1 - 0.9), rtol=1e-5)


def test_by_hand_is_the_alias():
    g = normal(20, 3)
    for between, nesterov in (((), False), ((adamx.nesterov(),), True)):
        stages = (
            adamx.optimizers.scale_by_belief_moments(),
            *between,
            adamx.bias_correction(1e-16),
            adamx.scale_by_lr(0.1),
        )
        alias = adamx.adabelief(0.1, nesterov=nesterov)
        np.testing.assert_array_equal(run(optax.chain(*stages), g)[0], run(alias, g)[0])


def test_its_moments_go_with_other_stages():
    g = normal(30, 3)
    tx = optax.chain(
        adamx.optimizers.scale_by_belief_moments(), adamx.optimizers.running_max(), adamx.bias_correction(1e-16)
    )
    _, state = run(tx, g)
    assert (state[1].nu_max >= state[0].nu).all()


@pytest.mark.parametrize("value", [-1e-16, np.inf, np.nan])
def test_a_wrong_epsilon_is_named(value):
    with pytest.raises(ValueError, match="eps_root must be a finite number of at least 0"):
        adamx.optimizers.scale_by_belief_moments(eps_root=value)
