"""Law 2: the effective step Δ_t = α m̂/√v̂ is bounded, by Cauchy-Schwarz and not by what Kingma & Ba (2015) say in 2.1.

With the normalized weights a_i of m̂ and b_i of v̂: |Δ_t| ≤ α √(Σ a_i²/b_i), and g_i ∝ a_i/b_i gets there. The paper's
α max(1, (1-β1)/√(1-β2)) is right for a gradient that is non-zero once, as long as β1² ≤ β2, and for typical streams.
"""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.laws.streams import (
    STEPS,
    adam,
    betas,
    cauchy_schwarz,
    direction,
    few,
    rates,
    rounding,
    run,
    seeds,
    shapes,
    stream,
)

pytestmark = pytest.mark.usefixtures("float64")

NORMAL = np.random.default_rng(0).standard_normal((2000, 64))


def claimed(b1, b2):
    return max(1.0, (1 - b1) / np.sqrt(1 - b2))


@few
@given(seeds, shapes, betas, betas, rates)
def test_no_stream_makes_a_longer_step_than_cauchy_schwarz_allows(seed, shape, b1, b2, alpha):
    updates, _ = run(adam, stream(seed, shape), alpha, b1, b2)
    for t in range(1, STEPS + 1):
        longest = alpha * cauchy_schwarz(b1, b2, t) * (1 + rounding(t, b1, b2))
        jax.tree.map(lambda u, t=t, longest=longest: np.testing.assert_array_less(abs(u[t - 1]), longest), updates)


@few
@given(st.floats(0.1, 0.999), st.floats(0.1, 0.999), rates)
def test_the_stream_that_grows_by_the_ratio_of_the_betas_gets_there(b1, b2, alpha):
    t = np.arange(1, STEPS + 1)
    updates, _ = run(adam, np.power(b1 / b2, STEPS - t)[:, None], alpha, b1, b2)
    exact = [-alpha * cauchy_schwarz(b1, b2, n) for n in t]
    np.testing.assert_allclose(updates[:, 0], exact, rtol=rounding(STEPS, b1, b2))


@pytest.mark.parametrize(("b2", "t", "reached", "paper"), [(0.999, 5000, 7.25, 3.16), (0.99, 2000, 2.35, 1.0)])
def test_a_counterexample_to_the_bound_of_the_paper(b2, t, reached, paper):
    g = np.power(0.9 / b2, np.arange(t - 1, -1, -1.0))[:, None]
    g[g < 1e-100] = 0  # their squares are no normal numbers
    updates, _ = run(adam, g, 1e-3, 0.9, b2)
    longest = float(np.max(np.abs(updates)))
    assert round(longest / 1e-3, 2) == reached
    assert round(claimed(0.9, b2), 2) == paper
    limit = (1 - 0.9) / np.sqrt((1 - b2) * (1 - 0.9**2 / b2))
    # v̂ lacks b2^t of its weight: 0.7 % at 5000 steps.
    assert limit * (1 - b2**t) <= longest / 1e-3 <= limit


@few
@given(betas, st.floats(0, 1), st.floats(1e-3, 1e3))
def test_the_bound_of_the_paper_holds_for_a_gradient_that_is_non_zero_once(b1, share, size):
    b2 = b1**2 + share * (0.9995 - b1**2)
    updates, _ = run(direction, np.eye(60) * size, b1, b2)  # in column k the gradient of step k
    assert np.max(np.abs(updates)) <= claimed(b1, b2) * (1 + rounding(60, b1, b2))


def test_it_does_not_where_m_decays_more_slowly_than_the_root_of_v():
    updates, _ = run(direction, np.eye(30), 0.9, 0.5)
    assert round(float(updates[-1, 0])) == 161
    assert claimed(0.9, 0.5) == 1


@pytest.mark.parametrize(("b1", "b2"), [(0.9, 0.999), (0.5, 0.99)])
@pytest.mark.parametrize(
    "gradients",
    [NORMAL, 1 + NORMAL, NORMAL**3, NORMAL * (np.abs(NORMAL) > 2)],
    ids=["normal", "biased", "heavy tails", "sparse"],
)
def test_the_bound_of_the_paper_holds_for_typical_streams(gradients, b1, b2):
    updates, _ = run(direction, gradients, b1, b2)
    assert np.max(np.abs(updates)) <= claimed(b1, b2)


def test_steps_on_noise_are_shorter_than_the_rate():
    # Normal with the deviation √((1-β1)/(1+β1)) = 0.23: 1 is more than four deviations away.
    for b2 in (0.99, 0.999):
        updates, _ = run(direction, NORMAL, 0.9, b2)
        assert np.mean(np.abs(updates[1:]) > 1) < 1e-4
