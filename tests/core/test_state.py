import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from adamx.core.state import DitheredMomentsState, MomentsState, check_state, increment


def test_count_saturates():
    assert increment(jnp.int32(0)) == 1
    assert increment(jnp.int32(2**31 - 2)) == 2**31 - 1
    assert increment(jnp.int32(2**31 - 1)) == 2**31 - 1


def test_the_step_of_a_dithered_state_wraps_where_the_count_saturates():
    tx = adamx.scale_by_moments(nu_dtype="bfloat16")
    state = tx.init(jnp.zeros(3))._replace(count=jnp.int32(2**31 - 1), step=jnp.uint32(2**32 - 1))
    _, state = tx.update(jnp.ones(3), state)
    assert (state.count, state.step, state.step.dtype) == (2**31 - 1, 0, jnp.uint32)


def test_only_dithered_moments_have_a_step():
    assert type(adamx.scale_by_moments(mu_dtype="bfloat16").init(jnp.zeros(3))) is MomentsState
    assert type(adamx.scale_by_moments(nu_dtype="bfloat16").init(jnp.zeros(3))) is DitheredMomentsState
    assert type(adamx.scale_by_moments(b2=0.999999, precise=True).init(jnp.zeros(3))) is MomentsState


def test_a_state_of_the_other_kind_is_refused():
    plain, dithered = adamx.scale_by_moments(), adamx.scale_by_moments(nu_dtype="bfloat16")
    with pytest.raises(
        TypeError, match="expected the state that init returned, DitheredMomentsState, got MomentsState"
    ):
        dithered.update(jnp.ones(3), plain.init(jnp.ones(3)))
    with pytest.raises(
        TypeError, match="expected the state that init returned, MomentsState, got DitheredMomentsState"
    ):
        plain.update(jnp.ones(3), dithered.init(jnp.ones(3)))


@pytest.mark.parametrize("step", [jnp.float32(0), np.zeros(2, np.uint32), "0"])
def test_a_wrong_step_is_named(step):
    state = adamx.scale_by_moments(nu_dtype="bfloat16").init(jnp.zeros(3))
    with pytest.raises(TypeError, match="step"):
        check_state(DitheredMomentsState, state._replace(step=step), {})


def test_quantized_leaves_are_checked_by_their_shape():
    codec = adamx.storage.Int8(min_size=0)
    tx = adamx.scale_by_moments(mu_dtype=codec, nu_dtype=codec)
    state = tx.init({"w": jnp.zeros((2, 64))})
    words = r"gradient at w has shape \(2, 32\), the state was made for a parameter of shape \(2, 64\)"
    with pytest.raises(ValueError, match=words):
        tx.update({"w": jnp.ones((2, 32))}, state)
