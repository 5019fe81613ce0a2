import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.interop import check_restored

PARAMS = {"layer": {"w": jnp.ones((4, 32)), "b": jnp.ones(3)}}
TX = adamx.adamw(optax.constant_schedule(1e-3))
STATE = TX.init(PARAMS)
INT8 = adamx.storage.Int8(min_size=0)


@pytest.mark.parametrize("came", [STATE, jax.tree.map(np.asarray, STATE), jax.eval_shape(TX.init, PARAMS)])
def test_what_fits_comes_back(came):
    assert check_restored(TX, came, PARAMS) is came
    assert check_restored(TX, came, jax.eval_shape(lambda: PARAMS)) is came


def test_python_numbers_have_the_dtypes_of_jax():
    state = (STATE[0]._replace(count=0), *STATE[1:])
    assert check_restored(TX, state, PARAMS) is state
    with pytest.raises(TypeError, match="0/count: expected int32, got float32"):
        check_restored(TX, (STATE[0]._replace(count=0.0), *STATE[1:]), PARAMS)


def refused(tx, state, params=PARAMS):
    with pytest.raises(TypeError) as error:
        check_restored(tx, state, params)
    return str(error.value)


def test_dtypes_that_were_cast():
    cast = jax.tree.map(lambda x: x.astype(jnp.bfloat16) if x.ndim else x, STATE)
    message = refused(TX, cast)
    for path in ("0/mu/layer/b", "0/mu/layer/w", "0/nu/layer/b", "0/nu/layer/w"):
        assert f"{path}: expected float32, got bfloat16" in message
    assert "adamx.interop.restore_as(tx, state, params)" in message
    assert "template" not in message


def test_another_storage():
    message = refused(adamx.adamw(optax.constant_schedule(1e-3), mu_dtype="bfloat16", nu_dtype=INT8), STATE)
    assert "0/nu/layer/w: expected uint8 codes with scales of float32(4, 1, 2), got float32" in message
    message = refused(adamx.adamw(optax.constant_schedule(1e-3), nu_dtype="float16"), STATE)
    assert "0/nu/layer/b: expected float16 codes with scales of bfloat16(1, 1), got float32" in message
    assert "adamx.interop.restore_as(tx, state, params)" in message
    assert "template" not in message


def test_other_parameters():
    message = refused(TX, STATE, {"layer": {"w": jnp.ones((4, 16)), "b": jnp.ones(3)}})
    assert "0/mu/layer/w: expected (4, 16), got (4, 32)" in message
    assert "0/mu/layer/b" not in message
    assert "restore with the params of that run" in message
    message = refused(TX, STATE, {"layer": {"v": jnp.ones((4, 32)), "b": jnp.ones(3)}})
    assert "missing 0/mu/layer/v, float32(4, 32)" in message
    assert "unexpected 0/mu/layer/w, float32(4, 32)" in message


def test_another_optimizer():
    message = refused(optax.sgd(0.1, momentum=0.9), STATE)
    assert "missing 0/trace/layer/b" in message
    assert "unexpected 0/nu/layer/w" in message
    assert "tx.init(params) as the template" in message
    assert "unexpected 2/count" in refused(adamx.adamw(1e-3), STATE)


def test_a_long_list_is_cut():
    params = [jnp.ones(2)] * 20
    message = refused(adamx.adam(1e-3, mu_dtype="bfloat16"), adamx.adam(1e-3).init(params), params)
    assert message.count("expected bfloat16, got float32") == 8
    assert "\n  and 12 more\n" in message


def test_other_containers():
    unnamed = [{"count": s.count, "mu": s.mu, "nu": s.nu} if hasattr(s, "mu") else s for s in STATE]
    assert "at the tree itself expected tuple, got list" in refused(TX, unnamed)
    of_optax = optax.adamw(optax.constant_schedule(1e-3)).init(PARAMS)
    message = refused(TX, of_optax)
    assert "at 0 expected MomentsState, got ScaleByAdamState" in message
    assert "adamx.interop.from_optax(state)" in message
    check_restored(TX, adamx.interop.from_optax(of_optax), PARAMS)


def test_what_is_no_array():
    assert "0/mu/layer/b: expected float32, got str" in refused(
        TX, (STATE[0]._replace(mu={"layer": {"w": PARAMS["layer"]["w"], "b": "text"}}), *STATE[1:])
    )
