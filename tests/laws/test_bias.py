"""Law 1: both averages are biased towards zero by the weight that they have not seen yet, and the correction ends it.

Kingma & Ba (2015), section 3: v_t = (1-β2) Σ β2^(t-i) g_i², E[v_t] = E[g_t²] (1-β2^t) + ζ.
"""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given

from tests.laws.streams import (
    EPS,
    STEPS,
    SUM,
    betas,
    direction,
    few,
    rounding,
    run,
    seeds,
    shapes,
    stream,
    uncorrected,
    weights,
)

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.slow
@few
@given(seeds, shapes, betas, betas)
def test_the_moments_are_weighted_sums(seed, shape, b1, b2):
    gradients = stream(seed, shape)
    _, states = run(direction, gradients, b1, b2)
    for t in range(1, STEPS + 1):
        (w1, _), (w2, _) = weights(b1, t), weights(b2, t)

        def check(m, v, g, t=t, w1=w1, w2=w2):
            of_sizes = np.tensordot(w1, np.abs(g[:t]), 1)
            assert np.all(np.abs(m[t - 1] - np.tensordot(w1, g[:t], 1)) <= SUM * of_sizes)
            np.testing.assert_allclose(v[t - 1], np.tensordot(w2, g[:t] ** 2, 1), rtol=SUM)

        jax.tree.map(check, states.mu, states.nu, gradients)


def every_stream(values, scales=None):
    """All streams of equally likely values, one an element: the mean over elements is the expectation."""
    found = np.array(list(itertools.product(values, repeat=8))).T
    return found if scales is None else found * scales[:, None]


@few
@given(seeds, betas, betas)
def test_the_expectation_of_a_stationary_stream_is_short_by_the_weight_and_corrected_it_is_not(seed, b1, b2):
    values = np.random.default_rng(seed).standard_normal(3)
    gradients = every_stream(values)
    _, states = run(direction, gradients, b1, b2)
    mean, square, size = values.mean(), (values**2).mean(), np.abs(values).mean()
    for t in range(1, 9):
        # Pairwise sums over the 3^8 streams round 13 times more; 1-β^t loses what β^t is rounded by.
        tolerance = SUM + 32 * EPS
        in_m, in_v = states.mu[t - 1].mean(), states.nu[t - 1].mean()
        assert abs(in_m - mean * (1 - b1**t)) <= tolerance * size
        assert abs(in_v - square * (1 - b2**t)) <= tolerance * square
        assert abs(in_v / (1 - b2**t) - square) <= tolerance / (1 - b2**t) * square


@few
@given(seeds, betas)
def test_a_stream_that_changes_adds_zeta(seed, b2):
    random = np.random.default_rng(seed)
    values, scales = random.standard_normal(3), 2.0 ** random.integers(-2, 3, 8)
    _, states = run(direction, every_stream(values, scales), 0.9, b2)
    expected = (values**2).mean() * scales**2
    for t in range(1, 9):
        zeta = weights(b2, t)[0] @ (expected[:t] - expected[t - 1])
        found = states.nu[t - 1].mean()
        size = weights(b2, t)[0] @ (expected[:t] + expected[t - 1])
        assert abs(found - (expected[t - 1] * (1 - b2**t) + zeta)) <= (SUM + 32 * EPS) * size


@pytest.mark.slow
@few
@given(seeds, shapes, betas, betas)
def test_uncorrected_every_step_is_wrong_by_the_ratio_of_the_weights(seed, shape, b1, b2):
    gradients = stream(seed, shape)
    (right, _), (wrong, _) = run(direction, gradients, b1, b2), run(uncorrected, gradients, b1, b2)
    for t in range(1, STEPS + 1):
        ratio = (1 - b1**t) / np.sqrt(1 - b2**t)

        def check(a, b, t=t, ratio=ratio):
            np.testing.assert_allclose(b[t - 1], ratio * a[t - 1], rtol=rounding(t, b1, b2))

        jax.tree.map(check, right, wrong)


@pytest.mark.parametrize(
    ("b1", "b2", "first"), [(0.9, 0.999, 3.16), (0.9, 0.999999, 100), (0.0, 0.9999, 100), (0.9, 0.99, 1)]
)
def test_the_first_step_uncorrected(b1, b2, first):
    g = np.full((1, 3), -0.7)
    (right, _), (wrong, _) = run(direction, g, b1, b2), run(uncorrected, g, b1, b2)
    np.testing.assert_allclose(right, -1.0, rtol=1e-10)
    np.testing.assert_allclose(wrong, -(1 - b1) / np.sqrt(1 - b2), rtol=1e-10)
    np.testing.assert_allclose(wrong, -first, rtol=2e-3)
