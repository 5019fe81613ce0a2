from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from adamx.core.guarded import Verdict, agreed, guarded, is_guard
from adamx.norm import global_norm


class FirstState(NamedTuple):
    inner: Any
    skipped: jax.Array
    left: jax.Array


def only_first(tx, steps, norm=None):
    """Takes the first few steps and no other."""

    def start(inner):
        return FirstState(inner, jnp.zeros([], jnp.int32), jnp.int32(steps))

    def judge(gradients, state, factor, extra):
        return Verdict(state.left > 0, state._replace(left=state.left - 1), norm)

    return guarded(tx, FirstState, start, judge)


@pytest.mark.parametrize("through", ["step", "update"])
def test_takes_or_leaves_a_step_and_counts(through):
    tx, plain, params = only_first(adamx.adam(0.1), 2), adamx.adam(0.1), jnp.ones(3)

    def run(tx, steps):
        def step(carry, g):
            if through == "step":
                return adamx.step(tx, g, carry[1], carry[0]), None
            updates, state = tx.update(g, carry[1], carry[0])
            return (carry[0] + updates, state), None

        gradients = jnp.arange(1.0, steps + 1)[:, None] * jnp.ones(3)
        return jax.jit(lambda: jax.lax.scan(step, (params, tx.init(params)), gradients)[0])()

    got, state = run(tx, 5)
    expected, inner = run(plain, 2)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert (int(state.skipped), int(state.left), int(state.inner[0].count)) == (3, -3, 2)
    np.testing.assert_array_equal(state.inner[0].mu, inner[0].mu)


@pytest.mark.slow
def test_a_norm_that_the_judge_has_taken_is_that_of_a_clip_inside():
    seen = []
    inner = adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adam(0.1))
    for norm in (jnp.float32(8.0), None):
        tx = only_first(inner, 1, norm)
        params = jnp.full(4, 2.0)
        _, state = adamx.step(tx, params, tx.init(params), params)
        seen.append(float(state.inner[1][0].mu[0]))
    np.testing.assert_allclose(seen, [0.1 * 2 / 8, 0.1 * 2 / 4], rtol=1e-6)
    assert global_norm(params) == 4


def test_says_what_it_wraps_and_what_state_it_needs():
    assert only_first(adamx.amsgrad(0.1), 1).update.why == adamx.amsgrad(0.1).update.why != ""
    tx = only_first(adamx.adam(0.1), 1)
    with pytest.raises(TypeError, match="expected the state that init returned, FirstState, got tuple"):
        tx.update(jnp.ones(1), adamx.adam(0.1).init(jnp.ones(1)))
    assert is_guard(tx.init(jnp.ones(1)))
    assert not is_guard(adamx.with_master_weights(adamx.adam(0.1)).init(jnp.ones(1)))


def test_outside_shard_map_a_shard_is_alone():
    assert agreed(jnp.bool_(True), frozenset())
    assert not agreed(jnp.bool_(False), frozenset())
