"""Master weights of 24 bits against those of 32, on AdamW with N(0,1) gradients."""

import numpy as np
import pytest

from tests.soak.masters import distance


def check(steps):
    """In units of the last bit: a walk at random, of which each step is rounded by less than a unit."""
    mean, largest, bias = distance(steps)
    print(f"{steps} steps: mean {mean:.3g}, largest {largest:.3g}, mean signed {bias:.2g}")
    root = np.sqrt(steps)
    assert 0.05 * root < mean < 0.35 * root
    assert largest < 3 * root
    assert abs(bias) < 0.02 * root


@pytest.mark.slow
@pytest.mark.parametrize("steps", [500, 2000])
def test_the_distance_from_32_bits(steps):
    check(steps)


@pytest.mark.soak
def test_the_distance_over_100000_steps():
    check(100_000)
