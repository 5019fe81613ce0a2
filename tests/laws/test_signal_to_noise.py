"""Law 3: m̂/√v̂ is a signal-to-noise ratio, so that steps shorten by themselves where noise is left of the gradient.

For gradients μ + σ ξ, ξ normal, and β2 close to 1 its mean is μ/√(μ²+σ²), which falls to 0 with μ. Its deviation is
√((1-β1)/(1+β1)) σ/√(μ²+σ²): a single step on mere noise is not 0, but 0.23 α at β1 = 0.9, and its direction is random.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.laws.streams import STEPS, betas, cauchy_schwarz, direction, few, rounding, run, seeds, shapes, stream

pytestmark = pytest.mark.usefixtures("float64")

# v̂ at β2 = 0.999 has the relative deviation √(2 (1-β2)/(1+β2)) = 3 %, which moves the mean of 1/√v̂ by 0.04 %.
B2, N, T = 0.999, 2048, 1500
XI = np.random.default_rng(0).standard_normal((T, N))


def last(gradients, b1):
    return run(direction, gradients, b1, B2)[0][-1]


@pytest.mark.slow
@few
@given(st.floats(-3, 3), st.sampled_from([0.5, 0.9, 0.95]))
def test_the_mean_direction_is_the_signal_to_noise_ratio(exponent, b1):
    mu = 10.0**exponent
    u = last(mu + XI, b1)
    expected, deviation = mu / np.sqrt(mu**2 + 1), np.sqrt((1 - b1) / (1 + b1) / (mu**2 + 1))
    # Four deviations of the mean of N elements, and what the last line above B2 allows, doubled.
    assert abs(u.mean() - expected) < 4 * deviation / np.sqrt(N) + 1e-3 * expected


@pytest.mark.parametrize("b1", [0.0, 0.5, 0.9, 0.99])
def test_on_mere_noise_the_direction_has_mean_zero_and_shrinks_with_the_memory_of_m(b1):
    u, deviation = last(XI, b1), np.sqrt((1 - b1) / (1 + b1))
    assert abs(u.mean()) < 4 * deviation / np.sqrt(N)
    # The deviation of N numbers is known to 1/√(2N), of which four.
    np.testing.assert_allclose(u.std(), deviation, rtol=4 / np.sqrt(2 * N))


@pytest.mark.slow
@few
@given(seeds, shapes, betas, betas)
def test_the_ratio_is_bounded(seed, shape, b1, b2):
    updates, states = run(direction, stream(seed, shape), b1, b2)
    for t in range(1, STEPS + 1):
        bound = cauchy_schwarz(b1, b2, t) * (1 + rounding(t, b1, b2))

        def check(u, m, v, t=t, bound=bound):
            m_hat, root = m[t - 1] / (1 - b1**t), np.sqrt(v[t - 1] / (1 - b2**t))
            assert np.all(abs(m_hat)[root > 0] <= bound * root[root > 0])
            np.testing.assert_allclose((u[t - 1] * root)[root > 0], m_hat[root > 0], rtol=rounding(t, b1, b2))

        jax.tree.map(check, updates, states.mu, states.nu)


@pytest.mark.parametrize("distance", [3.0, 30.0])
def test_a_noisy_bowl_is_approached_in_steps_of_the_rate_and_then_circled_in_shorter_ones(distance):
    def make(alpha):
        """Adam on f(θ) = θ²/2, whose exact gradient θ is overlaid with the noise that comes as a gradient."""
        inner = direction(0.9, B2)

        def init(params):
            return jnp.full_like(params, distance), inner.init(params)

        def update(noise, state, params=None):
            theta, state = state
            u, state = inner.update(theta + noise, state)
            return u, (theta - alpha * u, state)

        return optax.GradientTransformation(init, update)

    u, (theta, _) = run(make, XI[:, :256], distance / 300)
    first, final = np.abs(u[50:100]).mean(), np.abs(u[-200:]).mean()
    assert np.abs(theta[-200:]).mean() < 0.1
    assert first > 0.8 * distance / np.sqrt(distance**2 + 1)
    # √(2/π) 0.23 = 0.18 is the mean size of a normal number of that deviation; from 30, v̂ remembers larger gradients.
    assert final < 0.2
