import jax.numpy as jnp
import optax

from adamx.core.apply import apply_updates, widened


def test_gradients_become_as_wide_as_their_parameters_and_no_narrower():
    narrow, wide = jnp.ones(2, jnp.bfloat16), jnp.ones(2)
    assert widened({"a": narrow}, {"a": wide})["a"].dtype == jnp.float32
    assert widened({"a": wide}, {"a": narrow})["a"] is wide
    assert widened({"a": narrow}, {"b": wide})["a"] is narrow  # the transformation says what does not fit
    assert widened([jnp.arange(2)], [wide])[0].dtype == jnp.int32


def test_updates_are_added_as_optax_adds_them_also_to_float8():
    params, updates = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2)}, {"a": jnp.ones(2), "b": jnp.full(2, 0.25)}
    got, expected = apply_updates(params, updates), optax.apply_updates(params, updates)
    assert all(got[k].dtype == expected[k].dtype and (got[k] == expected[k]).all() for k in params)
    got = apply_updates(jnp.ones(2, jnp.float8_e4m3fn), jnp.full(2, 0.25))
    assert (got.dtype, got.astype(float).tolist()) == (jnp.float8_e4m3fn, [1.25, 1.25])
