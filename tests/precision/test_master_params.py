import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx

WEIGHTS = {
    "w": jnp.asarray(np.random.default_rng(0).standard_normal((64, 33)), jnp.float32),
    "b": jnp.asarray([0.0, -0.0, 1 + 2.0**-8, 1 + 3 * 2.0**-8, 1e-39, 3e38], jnp.float32),  # ties, zeros, a subnormal
    "scale": jnp.float32(0.3),
}
LABELS = {"w": "x", "b": "y", "scale": "x"}
MASTERS = {
    "alone": adamx.with_master_weights,
    "around a chain": lambda tx: adamx.with_master_weights(optax.chain(optax.clip_by_global_norm(10.0), tx)),
    "guarded": lambda tx: adamx.skip_nonfinite(adamx.with_master_weights(tx)),
    "in two groups": lambda tx: optax.partition(
        {"x": adamx.with_master_weights(tx), "y": adamx.with_master_weights(tx)}, LABELS
    ),
}


def started(tx, dtype, weights=WEIGHTS):
    params = jax.tree.map(lambda w: w.astype(dtype), weights)
    return adamx.set_master_params(tx.init(params), params, weights)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3fn"])
@pytest.mark.parametrize("wrap", MASTERS.values(), ids=MASTERS)
def test_what_is_set_is_read(wrap, dtype):
    params, state = started(wrap(adamx.adam(1e-3)), dtype)
    weights = adamx.master_params(state, params)
    for name, w in WEIGHTS.items():
        assert params[name].dtype == dtype
        keeps = np.isfinite(np.asarray(params[name], np.float32))  # what rounds to infinity has nothing behind it
        np.testing.assert_array_equal(np.asarray(weights[name])[keeps], np.asarray(w)[keeps])


@pytest.mark.slow
@pytest.mark.parametrize("make", [adamx.adamw])
def test_the_first_steps_are_those_of_float32(make):
    weights = {name: WEIGHTS[name] for name in ("w", "scale")}
    plain, tx = make(1e-2), adamx.with_master_weights(make(1e-2))
    expected, plain_state = weights, plain.init(weights)
    params, state = started(tx, jnp.bfloat16, weights)
    step, wide_step = (jax.jit(lambda p, s, g, tx=tx: adamx.step(tx, g, s, p)) for tx in (tx, plain))
    for t in range(5):
        gradients = jax.tree.map(lambda w, t=t: jnp.cos(w * t).astype(jnp.bfloat16), weights)
        params, state = step(params, state, gradients)
        wide = jax.tree.map(lambda g: g.astype(jnp.float32), gradients)
        expected, plain_state = wide_step(expected, plain_state, wide)
    found = adamx.master_params(state, params)
    for name in weights:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=2.0**-22)


def test_leaves_that_have_no_master_are_the_weights():
    weights = {"half": jnp.float32(0.1), "wide": jnp.float32(0.3)}
    params = {"half": jnp.bfloat16(0), "wide": jnp.float32(0)}
    tx = adamx.with_master_weights(adamx.adam(1e-3))
    params, state = adamx.set_master_params(tx.init(params), params, weights)
    assert params["wide"] == weights["wide"]
    assert adamx.master_params(state, params) == weights


def test_wrong_calls_say_what_is_wrong():
    params = {"w": jnp.ones(2, jnp.bfloat16)}
    with pytest.raises(TypeError, match="expected a state with a MasterWeightsState in it, got tuple"):
        adamx.set_master_params(adamx.adam(1e-3).init(params), params, params)
    state = adamx.with_master_weights(adamx.adam(1e-3)).init(params)
    with pytest.raises(ValueError, match="weight at w has shape"):
        adamx.set_master_params(state, params, {"w": jnp.ones(3)})
    with pytest.raises(ValueError, match="the weight tree does not have the structure of the parameter tree"):
        adamx.set_master_params(state, params, {"v": jnp.ones(2)})
