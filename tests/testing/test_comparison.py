import jax.numpy as jnp
import optax
import pytest

import adamx
from adamx.testing import assert_equivalent, compare

MUTANTS = {
    "beta1": adamx.adam(1e-3, b1=0.91),
    "beta2": adamx.adam(1e-3, b2=0.99),
    "epsilon": adamx.adam(1e-3, eps=1e-6),
    "rate": adamx.adam(1.01e-3),
    "root": adamx.adam(1e-3, eps_root=1e-8),
    "nesterov": adamx.adam(1e-3, nesterov=True),
    "uncorrected": optax.chain(adamx.join(adamx.scale_by_moments(), adamx.uncorrected()), adamx.scale_by_lr(1e-3)),
}


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS)
def test_sees_every_difference(mutant, draw, stream):
    with pytest.raises(AssertionError, match=r"first difference at step \d: update"):
        assert_equivalent(MUTANTS[mutant], optax.adam(1e-3), draw(0), stream(5))


@pytest.mark.slow
@pytest.mark.parametrize("jit", [True, False])
def test_equal_runs_are_equal_in_every_leaf(jit, draw, stream):
    report = assert_equivalent(adamx.adam(1e-3), optax.adam(1e-3), draw(0), stream(5), jit=jit)
    assert report.equal
    assert {leaf.part for leaf in report.leaves} == {"update", "state", "params"}
    assert all(len(leaf.ulps) == 5 for leaf in report.leaves)


@pytest.mark.slow
def test_a_tolerance_in_ulps(draw, stream):
    a, b = adamx.adam(1e-3), adamx.adam(1e-3 * (1 + 2**-23))
    report = compare(a, b, draw(0), stream(1))
    assert 0 < report.max_ulps <= 2
    assert_equivalent(a, b, draw(0), stream(1), max_ulps=2)
    with pytest.raises(AssertionError):
        assert_equivalent(a, b, draw(0), stream(1))


def test_states_of_different_layout_are_never_equivalent():
    masked = optax.masked(adamx.adam(1e-3), True)
    with pytest.raises(AssertionError, match=r"only in mine: \.inner_state\[0\]\.count"):
        assert_equivalent(masked, adamx.adam(1e-3), jnp.zeros(2), [jnp.ones(2)], max_ulps=9, names=("mine", "yours"))
