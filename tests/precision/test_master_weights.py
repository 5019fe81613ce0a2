import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx

TRANSFORMATIONS = {
    "adam": lambda: adamx.adam(1e-3),
    "adamw, scheduled": lambda: adamx.adamw(optax.cosine_decay_schedule(1e-2, 500), weight_decay=0.1),
    "optax.adamw": lambda: optax.adamw(1e-3, weight_decay=0.01),
    "sgd": lambda: optax.sgd(1e-4, momentum=0.9),
    "lamb": lambda: optax.lamb(1e-3),
    "clipped lion": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.lion(1e-4)),
}


LOW = {"bfloat16 moments": lambda: adamx.adam(1e-3, mu_dtype="bfloat16", nu_dtype="bfloat16")}


def start():
    """Leaves of more than 32 elements: XLA:CPU unrolls smaller loops, and contracts their sums as it likes."""
    random = np.random.default_rng(0)
    return {k: jnp.asarray(random.standard_normal(n), jnp.bfloat16) for k, n in (("w", (64, 64)), ("b", 1000))}


def gradients(weights, key):
    """In half precision, a function of the weights, so that trajectories that part stay apart."""
    # A quarter, exactly: a product that may or may not be contracted into the sum would round otherwise.
    noise = jax.tree.map(lambda w: jax.random.normal(key, w.shape), weights)
    return jax.tree.map(lambda w, n: (w + 0.25 * n).astype(jnp.bfloat16), weights, noise)


def run(step, carry, steps, jitted):
    keys = jax.random.split(jax.random.key(1), steps)
    if jitted:
        return jax.jit(lambda carry, keys: jax.lax.scan(step, carry, keys)[0])(carry, keys)
    for key in keys:
        carry, _ = step(carry, key)
    return carry


def in_float32(tx, steps, jitted=True):
    def step(carry, key):
        weights, state = carry
        g = jax.tree.map(lambda g: g.astype(jnp.float32), gradients(weights, key))
        updates, state = tx.update(g, state, weights)
        return (optax.apply_updates(weights, updates), state), None

    weights = jax.tree.map(lambda p: p.astype(jnp.float32), start())
    return run(step, (weights, tx.init(weights)), steps, jitted)


def in_bfloat16(tx, steps, jitted=True):
    tx = adamx.with_master_weights(tx)

    def step(carry, key):
        params, state = carry
        updates, state = tx.update(gradients(adamx.master_params(state, params), key), state, params)
        return (optax.apply_updates(params, updates), state), None

    params = start()
    return run(step, (params, tx.init(params)), steps, jitted)


def check_equal(make, steps, jitted=True):
    weights, state = in_float32(make(), steps, jitted)
    params, hidden = in_bfloat16(make(), steps, jitted)
    found = adamx.master_params(hidden, params)
    for name in weights:
        np.testing.assert_array_equal(
            np.asarray(found[name]).view(np.uint32), np.asarray(weights[name]).view(np.uint32)
        )
        assert params[name].dtype == jnp.bfloat16
        ulp = 2.0 ** (np.floor(np.log2(np.abs(np.asarray(weights[name])))) - 7)
        assert (np.abs(np.asarray(params[name], np.float32) - np.asarray(weights[name])) <= ulp / 2).all()
    jax.tree.map(np.testing.assert_array_equal, hidden.inner, state)


@pytest.mark.slow
@pytest.mark.parametrize("make", TRANSFORMATIONS.values(), ids=TRANSFORMATIONS.keys())
def test_the_hidden_weights_are_those_of_float32_training_to_the_bit(make):
    check_equal(make, 300)


@pytest.mark.slow
@pytest.mark.parametrize("make", TRANSFORMATIONS.values(), ids=TRANSFORMATIONS.keys())
def test_the_hidden_weights_are_those_of_float32_training_to_the_bit_over_10000_steps(make):
    check_equal(make, 10_000)


@pytest.mark.slow
@pytest.mark.parametrize("make", (TRANSFORMATIONS | LOW).values(), ids=(TRANSFORMATIONS | LOW).keys())
def test_the_same_op_by_op(make):
    check_equal(make, 3, jitted=False)


@pytest.mark.slow
@pytest.mark.parametrize("jitted", [True, False])
def test_updates_land_through_apply_updates(jitted):
    tx = adamx.with_master_weights(optax.sgd(1.0))
    update = jax.jit(tx.update) if jitted else tx.update
    random = np.random.default_rng(0)
    params = jnp.asarray(random.standard_normal(4096) * 10.0 ** random.integers(-6, 6, 4096), jnp.bfloat16)
    weights, state = np.asarray(params, np.float32), tx.init(params)
    for scale in (1e-4, 1e-2, 1.0, 100.0):
        u = (weights * random.standard_normal(4096) * scale).astype(np.float32)
        updates, state = update(-u, state, params)
        params = jax.jit(optax.apply_updates)(params, updates)
        weights = weights + u
        np.testing.assert_array_equal(adamx.master_params(state, params), weights)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("p", "u", "lands"),
    [
        (1.0, -1.0, 0.0),
        (1.0, -1.0 + 2.0**-20, 2.0**-20),
        (1.0, -1.0 - 2.0**-23, -(2.0**-23)),
        (3e38, 3e38, np.inf),
        (3.3e38, 1e37, np.inf),
        (1.0, np.nan, np.nan),
        (1.0, np.inf, np.inf),
        (-0.0, 0.0, 0.0),
        (1e-38, -0.9e-38, None),
        (1.0, 1e30, None),
        (1e30, -1e30 * (1 - 2.0**-20), None),
    ],
)
def test_the_state_follows_what_really_landed(p, u, lands):
    tx = adamx.with_master_weights(optax.identity())
    params = jnp.full(3, p, jnp.bfloat16)
    updates, state = jax.jit(tx.update)(jnp.full(3, u, jnp.float32), tx.init(params), params)
    params = jax.jit(optax.apply_updates)(params, updates)
    hidden = np.asarray(adamx.master_params(state, params))
    seen = np.asarray(params, np.float32)
    if lands is not None:
        np.testing.assert_array_equal(seen, np.asarray(lands, jnp.bfloat16).astype(np.float32))
    np.testing.assert_array_equal(np.isnan(hidden), np.isnan(seen))
    fine = np.isfinite(seen) & (seen != 0)
    np.testing.assert_allclose(hidden[fine], seen[fine], rtol=2.0**-8)
    assert (hidden[seen == 0] == 0).all()
    again, state = jax.jit(tx.update)(jnp.zeros(3, jnp.float32), state, params)
    np.testing.assert_array_equal(np.asarray(optax.apply_updates(params, again), np.float32), seen)


@pytest.mark.slow
@pytest.mark.parametrize("edge", [float(jnp.finfo(jnp.float32).tiny), 1.6e38])
def test_what_lands_beside_its_target_has_no_remainder(edge):
    tx, random = adamx.with_master_weights(optax.identity()), np.random.default_rng(0)
    params = jnp.asarray(edge * random.uniform(1.0, 1.2, 4096), jnp.bfloat16)
    state = tx.init(params)._replace(remainder=jnp.asarray(random.integers(0, 2**16, 4096), jnp.uint16))
    u = jnp.asarray(edge * random.uniform(1.0, 1.2, 4096), jnp.float32)
    moved = np.asarray(adamx.master_params(state, params) + u)
    updates, state = jax.jit(tx.update)(u, state, params)
    params = jax.jit(optax.apply_updates)(params, updates)
    seen, hidden = np.asarray(params, np.float32), np.asarray(adamx.master_params(state, params))
    landed = (seen == moved.astype(params.dtype).astype(np.float32)) & np.isfinite(seen)
    assert 0 < landed.sum() < landed.size
    np.testing.assert_array_equal(hidden, np.where(landed, moved, seen))


@pytest.mark.parametrize("dtype", ["float16", "float8_e4m3fn"])
def test_other_half_precision_has_a_whole_weight(dtype):
    tx = adamx.with_master_weights(optax.sgd(1e-3))
    params = jnp.ones(5, dtype)
    state = tx.init(params)
    assert state.remainder.dtype == jnp.float32
    for _ in range(300):
        updates, state = jax.jit(tx.update)(jnp.ones(5, dtype), state, params)
        hidden = adamx.master_params(state, params)
        if dtype == "float16":
            params = optax.apply_updates(params, updates)
            np.testing.assert_array_equal(params, hidden.astype(dtype))
        else:
            params = hidden.astype(dtype)
    np.testing.assert_allclose(hidden, 0.7, rtol=1e-5)


@pytest.mark.slow
def test_mixed_trees_leaf_by_leaf():
    tx = adamx.with_master_weights(adamx.adam(1e-3))
    params = {"half": jnp.ones(4, jnp.bfloat16), "single": jnp.ones(4), "none": None, "small": jnp.ones(2, jnp.float16)}
    g = {"half": jnp.ones(4, jnp.bfloat16), "single": jnp.ones(4, jnp.bfloat16), "none": None, "small": jnp.ones(2)}
    state = tx.init(params)
    assert state.remainder["single"] is None
    step = jax.jit(tx.update)
    for _ in range(3):
        updates, after = step(g, state, params)
        assert jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, state)
        moved, state = optax.apply_updates(params, updates), after
        assert jax.tree.map(lambda x: x.dtype, moved) == jax.tree.map(lambda x: x.dtype, params)
        params = moved
    assert step._cache_size() == 1
    exact = adamx.adam(1e-3)
    p, s = jnp.ones(4), exact.init(jnp.ones(4))
    for _ in range(3):
        u, s = jax.jit(exact.update)(jnp.ones(4), s, p)
        p = optax.apply_updates(p, u)
    np.testing.assert_array_equal(params["single"], p)
    np.testing.assert_array_equal(adamx.master_params(state, params)["half"], p)


def test_two_bytes_a_parameter_and_shapes_in_init():
    shape = {"w": jax.ShapeDtypeStruct((10, 10), jnp.bfloat16), "v": jax.ShapeDtypeStruct((3,), jnp.float16)}
    state = jax.eval_shape(adamx.with_master_weights(optax.sgd(1.0)).init, shape)
    assert (state.remainder["w"].dtype, state.remainder["v"].dtype) == (jnp.uint16, jnp.float32)


def test_wrong_calls_say_what_is_wrong():
    tx, params = adamx.with_master_weights(optax.sgd(1.0)), {"w": jnp.ones(3, jnp.bfloat16)}
    state = tx.init(params)
    with pytest.raises(
        ValueError, match=r"with_master_weights needs the parameters: tx.update\(gradients, state, params\)"
    ):
        tx.update(params, state)
    with pytest.raises(TypeError, match="expected the state that init returned, MasterWeightsState, got EmptyState"):
        tx.update(params, optax.EmptyState(), params)
    with pytest.raises(ValueError, match=r"gradient at w has shape \(4,\)"):
        tx.update({"w": jnp.ones(4)}, state, params)
    with pytest.raises(TypeError, match="expected a state with a MasterWeightsState in it, got tuple"):
        adamx.master_params((optax.EmptyState(),), params)
    integers = {"w": jnp.arange(3)}
    with pytest.raises(TypeError, match="gradient at w must be an array"):
        tx.update(integers, tx.init(integers), integers)


def test_found_inside_a_chain():
    tx = optax.chain(adamx.with_master_weights(optax.sgd(1.0)))
    params = jnp.ones(3, jnp.bfloat16)
    np.testing.assert_array_equal(adamx.master_params(tx.init(params), params), jnp.ones(3))
