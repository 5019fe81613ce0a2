import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx

RATE = optax.warmup_cosine_decay_schedule(0.0, 0.02, 3, 12)


def test_is_as_large_a_share_as_the_learning_rate_has_of_its_peak():
    schedule = adamx.relative_decay(0.1, RATE, 0.02)
    for count in range(14):
        np.testing.assert_allclose(schedule(count), 0.1 * RATE(count) / 0.02, rtol=1e-6)
    assert float(schedule(3)) == pytest.approx(0.1)
    assert float(schedule(12)) == 0


@pytest.mark.slow
def test_is_independent_of_how_the_learning_rate_is_scaled():
    # The decay behind the learning rate is that of `adamw` with λ / α_max.
    params, gradients = jnp.asarray([2.0, -1.0]), jnp.asarray([0.3, 0.1])
    behind = adamx.chain(adamx.adam(RATE), adamx.decay_weights(adamx.relative_decay(0.01, RATE, 0.02)))
    coupled = adamx.adamw(RATE, weight_decay=0.01 / 0.02)
    ends = []
    for tx in (behind, coupled):
        state, p = tx.init(params), params
        for _ in range(5):
            p, state = jax.jit(lambda p, s, tx=tx: adamx.step(tx, gradients, s, p))(p, state)
        ends.append(p)
    np.testing.assert_allclose(*ends, rtol=1e-6)


@pytest.mark.parametrize("number", [0.5, 1, np.float64(0.5), np.float16(0.5), jnp.float32(0.5), jnp.bfloat16(0.5)])
def test_numbers_of_all_kinds(number):
    assert float(adamx.relative_decay(number, lambda count: 0.25, 0.5)(0)) == float(number) / 2
    assert float(adamx.relative_decay(0.25, lambda count: number, number)(0)) == 0.25


def test_is_traced_and_differs_for_members_of_an_ensemble():
    schedule = jax.jit(adamx.relative_decay(0.5, RATE, 0.02))
    np.testing.assert_allclose(schedule(jnp.int32(3)), 0.5)
    found = jax.vmap(lambda lam: adamx.relative_decay(lam, RATE, 0.02)(3))(jnp.asarray([0.5, 0.25]))
    np.testing.assert_allclose(found, [0.5, 0.25])


@pytest.mark.parametrize("value", [-1e-4, np.nan, np.inf])
def test_a_decay_or_a_peak_out_of_range_is_named(value):
    with pytest.raises(ValueError, match=rf"^weight_decay must be a finite number of at least 0, got {value}"):
        adamx.relative_decay(value, RATE, 0.02)
    with pytest.raises(ValueError, match=rf"^peak must be a finite number .*got {value}"):
        adamx.relative_decay(0.1, RATE, value)
    with pytest.raises(ValueError, match=r"^peak must be a finite number above 0, .* got 0\.0"):
        adamx.relative_decay(0.1, RATE, 0)


@pytest.mark.parametrize("value", [0.01, None, "cosine", optax.sgd(0.1), jnp.float32(0.01)])
def test_a_learning_rate_that_is_no_schedule_is_told_what_to_do(value):
    with pytest.raises(TypeError, match=r"learning_rate must be a schedule, got .* pass weight_decay itself"):
        adamx.relative_decay(0.1, value, 0.02)


def test_a_schedule_that_gives_no_number_is_named():
    with pytest.raises(TypeError, match="learning_rate schedule <lambda>"):
        adamx.relative_decay(0.1, lambda count: "0.1", 0.02)
    with pytest.raises(TypeError, match=r"^weight_decay must be a real number, got"):
        adamx.relative_decay(RATE, RATE, 0.02)
