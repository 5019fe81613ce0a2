import numpy as np
import pytest

from adamx.testing import reference_adam


def test_worked_example():
    path = reference_adam([0.0], [[10.0]], alpha=0.1, beta1=0.2)
    assert path.m[0, 0] == 8
    np.testing.assert_allclose(path.v[0, 0], 0.1)
    np.testing.assert_allclose(path.theta[0, 0], -0.1)


def test_two_steps_by_hand():
    path = reference_adam(1.0, [1.0, 3.0], alpha=1.0, beta1=0.5, beta2=0.5, epsilon=0.0)
    m2, v2 = 0.5 * 0.5 + 0.5 * 3, 0.5 * 0.5 + 0.5 * 9
    np.testing.assert_allclose(path.update, [-1.0, -(m2 / 0.75) / np.sqrt(v2 / 0.75)])
    np.testing.assert_allclose(path.theta, 1 + np.cumsum(path.update))


def test_weight_decay_schedule_and_complex():
    path = reference_adam([2 + 2j], [[0j], [0j]], lambda count: 0.1 * (1 + count), weight_decay=0.5)
    np.testing.assert_allclose(path.theta[:, 0], [(2 + 2j) * 0.95, (2 + 2j) * 0.95 * 0.9])
    assert path.v.dtype == np.float64


def test_refuses_what_is_no_stream():
    with pytest.raises(ValueError, match="gradient 2 has shape"):
        reference_adam(np.zeros(2), [np.zeros(2), np.zeros(3)])
    with pytest.raises(ValueError, match="at least one"):
        reference_adam(np.zeros(2), [])
