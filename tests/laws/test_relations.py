"""Law 5: what Adam becomes for other decay rates: RMSProp, AdaGrad, the sign of the gradient."""

import jax
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import adamx
from tests.laws.streams import STEPS, adam, betas, direction, few, rates, rounding, run, seeds, stream

pytestmark = pytest.mark.usefixtures("float64")


def rmsprop(alpha, b2):
    return optax.rmsprop(alpha, b2, eps=1e-8, eps_in_sqrt=False, bias_correction=True)


def adam_without_momentum(alpha, b2):
    return adamx.adam(alpha, 0.0, b2)


@pytest.mark.slow
@few
@given(seeds, betas, rates)
def test_without_momentum_it_is_rmsprop_with_correction(seed, b2, alpha):
    gradients = stream(seed, "nested")
    (ours, _), (theirs, _) = run(adam_without_momentum, gradients, alpha, b2), run(rmsprop, gradients, alpha, b2)
    for t in range(STEPS):
        tolerance = rounding(t + 1, 0.0, b2)
        jax.tree.map(
            lambda a, b, t=t, tolerance=tolerance: np.testing.assert_allclose(a[t], b[t], rtol=tolerance), ours, theirs
        )


def adagrad(alpha):
    return optax.adagrad(alpha, initial_accumulator_value=0.0, eps=0.0)


def adam_towards_adagrad(alpha, b2):
    return adamx.adam(lambda count: alpha / (count + 1) ** 0.5, 0.0, b2, eps=0.0)


@pytest.mark.slow
@few
@given(seeds, rates)
def test_adagrad_is_its_limit_and_the_distance_is_linear_in_one_minus_b2(seed, alpha):
    gradients = stream(seed, "nested")
    limit, _ = run(adagrad, gradients, alpha)

    def distances(b2):
        """By how much of itself each update differs from AdaGrad's; 0 where both are."""
        ours, _ = run(adam_towards_adagrad, gradients, alpha, b2)
        pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(limit), strict=True)
        return np.concatenate([np.ravel(np.divide(u, w, out=np.ones_like(u), where=w != 0) - 1) for u, w in pairs])

    far, near = distances(1 - 1e-4), distances(1 - 1e-5)
    # v̂ weighs the t squares by 1/t (1 + O(t (1-β2))), and √v̂ by half of that.
    assert np.max(np.abs(near)) <= STEPS / 2 * 1e-5
    assert np.max(np.abs(near)) > 0
    # Ten times nearer but for terms of the next order, t times smaller again, and the roundings of 1-β2^t.
    np.testing.assert_allclose(far, 10 * near, rtol=0, atol=(STEPS * 1e-4) ** 2)


@few
@given(seeds, rates)
def test_without_memory_it_is_the_sign_of_the_gradient(seed, alpha):
    gradients = stream(seed, "nested")
    updates, _ = run(adam, gradients, alpha, 0.0, 0.0)
    jax.tree.map(lambda u, g: np.testing.assert_allclose(u, -alpha * np.sign(g), rtol=1e-15), updates, gradients)


def adam_with_a_large_eps(b1):
    return adamx.scale_by_adam(b1, 0.999, eps=1e12)


def momentum(b1):
    return optax.ema(b1, debias=True)


@pytest.mark.slow
@few
@given(seeds, betas)
def test_with_an_eps_above_every_gradient_it_is_momentum(seed, b1):
    gradients = stream(seed, "nested")
    (ours, _), (theirs, _) = run(adam_with_a_large_eps, gradients, b1), run(momentum, gradients, b1)
    # No root of v̂ is above 1e4: 1e-8 of ε. The sums cancel at most to what rounding leaves of the largest gradient.
    jax.tree.map(lambda u, m: np.testing.assert_allclose(u * 1e12, m, rtol=1e-8, atol=1e-10), ours, theirs)


@few
@given(seeds, betas, st.floats(1e-3, 1e3))
def test_a_constant_gradient_gives_steps_of_the_rate(seed, b1, alpha):
    g = np.broadcast_to(stream(seed)[0] + 1e-3, (STEPS, 24))
    updates, _ = run(adam, g, alpha, b1, 0.999)
    np.testing.assert_allclose(updates, -alpha * np.sign(g), rtol=rounding(STEPS, b1, 0.999) + rounding(1, b1, 0.999))


def test_the_first_step_is_the_sign_of_the_gradient_for_all_betas():
    g = stream(0)[:1]
    for b1, b2 in [(0.0, 0.999), (0.9, 0.999), (0.999, 0.5)]:
        np.testing.assert_allclose(run(direction, g, b1, b2)[0], np.sign(g), rtol=rounding(1, b1, b2))
