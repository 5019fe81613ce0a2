import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from adamx.core.state import MomentsState, check_state, increment


def test_count_saturates():
    assert increment(jnp.int32(0)) == 1
    assert increment(jnp.int32(2**31 - 2)) == 2**31 - 1
    assert increment(jnp.int32(2**31 - 1)) == 2**31 - 1


@pytest.mark.parametrize("nu_dtype", [None, "bfloat16", "float16", adamx.storage.Int8(min_size=0)], ids=str)
def test_one_container_holds_every_storage(nu_dtype):
    assert type(adamx.scale_by_moments(nu_dtype=nu_dtype).init(jnp.zeros((2, 64)))) is MomentsState


@pytest.mark.slow
def test_thresholds_stand_still_where_the_count_saturates():
    tx, g = adamx.scale_by_moments(nu_dtype="bfloat16"), jnp.full(1000, 1.001)
    last = tx.init(jnp.zeros(1000))._replace(count=jnp.int32(2**31 - 1), nu=jnp.ones(1000, "bfloat16"))
    _, one = tx.update(g, last)
    _, other = tx.update(g, last)
    assert one.count == 2**31 - 1
    assert (one.nu == other.nu).all()


def test_v_of_another_precision_is_refused():
    plain, dithered = adamx.adam(0.1), adamx.adam(0.1, nu_dtype="bfloat16")
    x = {"w": jnp.ones(3)}
    for tx, other, words in ((plain, dithered, "float32 at w, got bfloat16"), (dithered, plain, "bfloat16 at w, got")):
        with pytest.raises(TypeError, match=f"stored as {words}.*restore_as"):
            tx.update(x, other.init(x))
        with pytest.raises(TypeError, match=f"stored as {words}.*restore_as"):
            adamx.step(tx, x, other.init(x), x)


@pytest.mark.parametrize("count", [jnp.float32(0), np.zeros(2, np.uint32), "0"])
def test_a_wrong_count_is_named(count):
    state = adamx.scale_by_moments().init(jnp.zeros(3))
    with pytest.raises(TypeError, match="count"):
        check_state(state._replace(count=count), {})


def test_quantized_leaves_are_checked_by_their_shape():
    codec = adamx.storage.Int8(min_size=0)
    tx = adamx.scale_by_moments(mu_dtype=codec, nu_dtype=codec)
    state = tx.init({"w": jnp.zeros((2, 64))})
    words = r"gradient at w has shape \(2, 32\), the state was made for a parameter of shape \(2, 64\)"
    with pytest.raises(ValueError, match=words):
        tx.update({"w": jnp.ones((2, 32))}, state)
