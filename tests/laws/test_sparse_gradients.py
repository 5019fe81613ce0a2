"""Law 6: a coordinate whose gradient is rarely other than zero keeps a large step.

Where a gradient g comes every k-th step, v̂ settles around g²/k: each g moves the parameter by about α √k, however small
g is and for how long this has gone on. SGD moves it by α g; AdaGrad by α/√n for the n-th.
"""

import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.laws.streams import adam, few, rates, run

pytestmark = pytest.mark.usefixtures("float64")

STEPS = 6000
PERIODS = np.array([1, 2, 5, 10, 20, 50, 100])


def pulses(sizes):
    """One column for each period k: a gradient of the column's size in each k-th step, else 0."""
    t = np.arange(1, STEPS + 1)[:, None]
    return (t % PERIODS == 0) * sizes


def travel(updates, start, stop):
    """How far each pulse between two steps, of which 100 is a multiple, has moved its parameter, in the mean."""
    return -updates[start:stop].sum(axis=0) / ((stop - start) / PERIODS)


def per_pulse(b1, b2, k):
    """In the long run: Σ_j m_j/√v_j over the k steps from one pulse to the next."""
    j = np.arange(k)
    m, v = (1 - b1) * b1**j / (1 - b1**k), (1 - b2) * b2**j / (1 - b2**k)
    return np.sum(m / np.sqrt(v))


@few
@given(st.sampled_from([0.0, 0.5, 0.9]), rates, st.floats(-6, 6))
def test_each_pulse_moves_a_parameter_by_the_root_of_its_period(b1, alpha, exponent):
    sizes = 10.0**exponent * (-1.0) ** np.arange(len(PERIODS))
    updates, _ = run(adam, pulses(sizes), alpha, b1, 0.99)
    found = travel(updates, 5000, 6000) / alpha
    # 0.99^5000 = 1e-22 of the beginning is left; the sums are of 1000 terms.
    np.testing.assert_allclose(found, np.sign(sizes) * [per_pulse(b1, 0.99, k) for k in PERIODS], rtol=1e-11)
    # √((1-0.99^k)/0.01) to √k: v̂ is largest when a pulse comes, k/2 steps of its memory older on average.
    np.testing.assert_allclose(np.abs(found), np.sqrt(PERIODS), rtol=0.3)
    assert np.all(np.diff(np.abs(found)) > 0)


def adagrad(alpha):
    return optax.adagrad(alpha, initial_accumulator_value=0.0, eps=0.0)


@few
@given(rates, st.floats(-3, 3))
def test_with_sgd_a_rare_gradient_counts_as_rarely_as_it_comes(alpha, exponent):
    gradients = pulses(10.0**exponent)
    ours, theirs = (run(make, gradients, alpha, *b)[0] for make, b in [(adam, (0.9, 0.99)), (optax.sgd, ())])
    ways = [travel(updates, 5000, 6000) / PERIODS for updates in (ours, theirs)]
    shares = [way / way[0] for way in ways]
    np.testing.assert_allclose(shares[1], 1 / PERIODS, rtol=1e-11)
    assert np.all(shares[0] >= 0.8 / np.sqrt(PERIODS))


@few
@given(rates, st.floats(-3, 3))
def test_with_adagrad_each_pulse_counts_less_than_the_one_before(alpha, exponent):
    gradients = pulses(10.0**exponent)
    theirs, ours = (run(make, gradients, alpha, *b)[0] for make, b in [(adagrad, ()), (adam, (0.9, 0.99))])
    for start in (1000, 2000, 5000):
        mean = [np.mean(1 / np.sqrt(np.arange(start // k + 1, (start + 1000) // k + 1))) for k in PERIODS]
        np.testing.assert_allclose(travel(theirs, start, start + 1000), alpha * np.array(mean), rtol=1e-11)
        # 0.99^1000 = 4e-5 of the beginning is left at first.
        np.testing.assert_allclose(travel(ours, start, start + 1000), travel(ours, 5000, 6000), rtol=1e-4)
