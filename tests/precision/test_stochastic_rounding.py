import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx


def drifted(steps, by, n=4096, dtype=jnp.bfloat16, seed=0, start=1.0):
    """Parameters after so many steps of a constant drift."""
    tx = adamx.with_stochastic_rounding(optax.identity(), seed)

    @jax.jit
    def run(params, state):
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(jnp.full(n, by), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), length=steps)[0]

    params = jnp.full(n, start, dtype)
    return np.asarray(run(params, tx.init(params))[0], np.float64)


def check_unbiased(steps):
    params = drifted(steps, np.float32(-0.4 / steps), n=2**17)
    assert abs(params.mean() - (1 - steps * float(np.float32(0.4 / steps)))) < 3e-5


@pytest.mark.slow
def test_unbiased_over_10000_steps():
    check_unbiased(10_000)


@pytest.mark.slow
def test_unbiased_over_100000_steps():
    check_unbiased(100_000)


@pytest.mark.parametrize("by", [1e-6, 3e-5, 1e-3])
def test_the_error_of_a_constant_drift_stays_within_a_few_units_in_the_last_place(by):
    by = np.float32(by)
    for steps in (100, 1000, 2**13):
        error = np.abs(drifted(steps, -by, start=16.0) - (16 - steps * float(by))) / (8 * 2.0**-7)
        assert np.quantile(error, 0.99) < 4
        assert np.sqrt(np.mean(error**2)) < 1.2


def test_small_steps_do_not_stall_where_plain_rounding_does():
    by = np.float32(-1e-4)
    plain = jnp.ones(1000, jnp.bfloat16)
    for _ in range(10):
        plain = optax.apply_updates(plain, jnp.full(1000, by))
    assert (plain == 1).all()
    assert abs(drifted(2000, by, n=1000).mean() - 0.8) < 1e-3


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_to_a_neighbour(dtype):
    tx = adamx.with_stochastic_rounding(optax.identity())
    params = jnp.ones(1000, dtype)
    eps = float(jnp.finfo(dtype).eps)
    updates, _ = jax.jit(tx.update)(jnp.full(1000, 0.3 * eps, jnp.float32), tx.init(params), params)
    assert updates.dtype == jnp.float32
    moved = np.asarray(optax.apply_updates(params, updates), np.float64)
    assert set(moved) == {1.0, 1.0 + eps}
    assert abs((moved > 1).mean() - 0.3) < 0.06


def test_the_inner_transformation_sees_float32_and_float32_leaves_pass_through():
    seen = []

    def update(updates, state, params=None):
        seen.extend(x.dtype for x in (*jax.tree.leaves(updates), *jax.tree.leaves(params)))
        return updates, state

    tx = adamx.with_stochastic_rounding(optax.GradientTransformation(lambda _: optax.EmptyState(), update))
    params = {"half": jnp.ones(3, jnp.bfloat16), "single": jnp.ones(3)}
    updates, _ = tx.update(params, tx.init(params), params)
    assert set(seen) == {jnp.dtype(jnp.float32)}
    np.testing.assert_array_equal(updates["single"], 1)


@pytest.mark.slow
def test_a_resumed_run_and_another_seed():
    whole = drifted(300, np.float32(1e-3), n=64)
    np.testing.assert_array_equal(whole, drifted(300, np.float32(1e-3), n=64))
    assert (whole != drifted(300, np.float32(1e-3), n=64, seed=1)).any()
    tx = adamx.with_stochastic_rounding(adamx.adam(1e-3))
    params = jnp.ones(64, jnp.bfloat16)
    state, step = tx.init(params), jax.jit(tx.update)
    assert (state.step.dtype, state.step) == (jnp.uint32, 0)
    for t in range(5):
        updates, state = step(params, state, params)
        params = optax.apply_updates(params, updates)
        assert state.step == t + 1
    assert step._cache_size() == 1


def test_wrong_calls_say_what_is_wrong():
    with pytest.raises(TypeError, match="seed must be an integer, got 'x'"):
        adamx.with_stochastic_rounding(optax.sgd(1.0), "x")
    tx, params = adamx.with_stochastic_rounding(optax.sgd(1.0)), {"w": jnp.ones(3, jnp.bfloat16)}
    state = tx.init(params)
    with pytest.raises(ValueError, match="with_stochastic_rounding needs the parameters"):
        tx.update(params, state)
    with pytest.raises(TypeError, match="StochasticRoundingState, got MasterWeightsState"):
        tx.update(params, adamx.with_master_weights(optax.sgd(1.0)).init(params), params)
    with pytest.raises(ValueError, match=r"gradient at w has shape \(4,\)"):
        tx.update({"w": jnp.ones(4)}, state, params)
