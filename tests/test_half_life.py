import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx


def test_half_of_the_weight_is_left_after_the_half_life():
    for steps in (0.5, 1, 13.5, 693, 1e6):
        assert adamx.beta2_for(1024, half_life=1024 * steps) ** steps == pytest.approx(0.5, rel=1e-9)


def test_the_half_life_of_v_is_that_many_tokens():
    b2, tx = adamx.beta2_for(64, 640), adamx.scale_by_moments(b1=0.0, b2=adamx.beta2_for(64, 640))
    state = tx.init(jnp.zeros(1))
    _, first = tx.update(jnp.ones(1), state)
    state = first
    for _ in range(10):
        _, state = tx.update(jnp.zeros(1), state)
    np.testing.assert_allclose(state.nu, first.nu / 2, rtol=1e-5)
    assert b2 == 2**-0.1


def test_a_batch_of_a_quarter_takes_the_fourth_root():
    assert adamx.beta2_for(256, 7e6) == pytest.approx(adamx.beta2_for(1024, 7e6) ** 0.25, rel=1e-15)


@pytest.mark.parametrize("number", [8, 8.0, np.int64(8), np.float16(8), np.asarray(8), jnp.float32(8), jnp.int32(8)])
def test_numbers_of_all_kinds(number):
    assert adamx.beta2_for(number, half_life=8) == 0.5
    assert isinstance(adamx.beta2_for(8, half_life=number), float)


def test_a_half_life_of_a_tiny_part_of_a_step_forgets_everything():
    assert 0 <= adamx.beta2_for(1e300, 1e-300) < 1e-300


@pytest.mark.parametrize("name", ["tokens_per_step", "half_life"])
@pytest.mark.parametrize("value", [0, 0.0, -1, np.inf, np.nan])
def test_numbers_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be a finite number .*, got {float(value)}"):
        adamx.beta2_for(**{"tokens_per_step": 8, "half_life": 8, name: value})


@pytest.mark.parametrize("name", ["tokens_per_step", "half_life"])
@pytest.mark.parametrize("value", ["8", None, True, [8]])
def test_what_is_no_number_is_named(name, value):
    with pytest.raises(TypeError, match=rf"^{name} must be a real number, got"):
        adamx.beta2_for(**{"tokens_per_step": 8, "half_life": 8, name: value})


def test_a_beta2_that_rounds_to_1_is_refused():
    assert adamx.beta2_for(1, 2.0**51) < 1
    with pytest.raises(ValueError, match=r"^half_life must be below 2\^53 steps, for β2 below 1, got 1e\+18 with 1\.0"):
        adamx.beta2_for(1, 1e18)


def test_a_traced_number_is_told_where_to_go():
    with pytest.raises(TypeError, match=r"^half_life must be a number whose value is known.*outside jax\.jit"):
        jax.jit(lambda h: adamx.beta2_for(8, h))(8.0)
