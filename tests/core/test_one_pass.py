import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.core.leaf import MASTER, PLAIN, STOCHASTIC
from adamx.core.step import Pass, Weights, take_step
from adamx.core.work import by_xla

PARAMS = {"a": jnp.ones((2, 3)), "b": {"c": jnp.ones(4, "bfloat16")}}


def handed(tx, steps=1, **extra):
    """What an optimizer hands to the executor in each step, and its state after them."""
    seen, weights, state = [], Weights(PARAMS), tx.init(PARAMS)

    def execute(work):
        seen.append(work)
        return by_xla(work)

    for _ in range(steps):
        weights, state = take_step(tx, PARAMS, state, weights, Pass(execute, extra))
    return seen, state


def first(tx, **extra):
    return handed(tx, **extra)[0][0]


def test_counts_and_schedules_advance_once():
    decay = optax.linear_schedule(0.5, 0.0, 10)
    seen, state = handed(adamx.adamw(optax.linear_schedule(1.0, 0.0, 10), weight_decay=decay), steps=3)
    assert [int(work.numbers.moments_step) for work in seen] == [1, 2, 3]
    np.testing.assert_allclose([float(work.tails[1].terms[0].scale) for work in seen], [-1.0, -0.9, -0.8], rtol=1e-6)
    np.testing.assert_allclose([float(work.tails[0].terms[0].decay) for work in seen], [0.5, 0.45, 0.4], rtol=1e-6)
    assert [int(x) for x in jax.tree.leaves(state) if jnp.ndim(x) == 0] == [3, 3, 3]


@pytest.mark.slow
def test_what_is_behind_a_parameter():
    assert first(adamx.adam(0.1)).rule.behind == PLAIN
    assert first(adamx.with_master_weights(adamx.adam(0.1))).rule.behind == MASTER
    work, other = (first(adamx.with_stochastic_rounding(adamx.adam(0.1), seed=seed)) for seed in (3, 4))
    assert work.rule.behind == STOCHASTIC
    assert int(work.numbers.params_step) == 1
    assert work.salts[0][1] != other.salts[0][1]


def test_arrays_go_with_the_numbers_and_floats_with_the_rule():
    known = first(adamx.adam(0.1, b1=0.5, eps=1e-3))
    assert (known.rule.averages.b1, known.rule.eps) == (0.5, 1e-3)
    traced = first(adamx.adam(0.1, b1=jnp.float32(0.5), eps=jnp.float32(1e-3)))
    assert (traced.rule.averages.b1, traced.rule.eps) == (None, None)
    assert (float(traced.numbers.b1), float(traced.numbers.eps)) == (0.5, float(np.float32(1e-3)))


def test_the_factor_and_the_places_of_shards():
    clipped = adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adam(0.1))
    work = first(clipped, dither_offset={"a": (8, 16), "b": {"c": (4,)}})
    np.testing.assert_allclose(float(work.numbers.factor), 10**-0.5, rtol=1e-6)
    assert work.offsets == ((8, 16), (4,))
    assert first(adamx.adam(0.1)).numbers.factor is None


def test_a_tree_without_leaves():
    tx = adamx.adam(0.1)
    weights, state = take_step(tx, {}, tx.init({}), Weights({}), Pass(by_xla))
    assert weights.params == {}
    assert int(state[0].count) == 1
