"""The average of the parameters, against float64, in both ways to run a chain."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.ema import EmaState
from tests.averaging import ULP, assert_close, exponential, mean, run
from tests.backends import composed, differing, jitted

INT8 = adamx.storage.Int8(32, 0)
WAYS = {"step": jitted, "update": composed}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@pytest.mark.slow
@each_way
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.9999])
def test_it_is_the_corrected_average_of_the_parameters(decay, way):
    tx = adamx.with_ema(adamx.adamw(0.01), decay)
    params, state, path = run(tx, 12, way=way)
    expected, inner, _ = run(adamx.adamw(0.01), 12, way=way)
    assert differing((params, state.inner), (expected, inner)) == []
    assert_close(adamx.ema_params(state, params), mean(path, exponential(decay, 12)))
    np.testing.assert_allclose(state.weight, -np.expm1(12 * np.log(decay)) if decay else 1, rtol=2 * ULP)


@pytest.mark.slow
@each_way
@pytest.mark.parametrize(("every", "start"), [(1, 4), (3, 0), (2, 5)])
def test_taken_once_in_so_many_steps_from_a_start_on(every, start, way):
    params, state, path = run(adamx.with_ema(adamx.adam(0.01), 0.8, every, start=start), 12, way=way)
    taken = path[start:][every - 1 :: every]
    assert int(state.count) == 12
    assert_close(adamx.ema_params(state, params), mean(taken, exponential(0.8, len(taken))))


@pytest.mark.slow
@each_way
def test_schedules(way):
    def tail(k):
        return k / (k + 1)

    params, state, path = run(adamx.with_ema(adamx.adam(0.01), tail, start=3), 12, way=way)
    assert_close(adamx.ema_params(state, params), mean(path[3:], [1] * 9))
    assert float(state.weight) == 1
    rates = [0.9, 0.7, 0.99, 0.2, 0.5, 0.999]
    weights = [(1 - d) * np.prod(rates[i + 1 :]) for i, d in enumerate(rates)]
    table = jnp.asarray(rates)
    params, state, path = run(adamx.with_ema(adamx.adam(0.01), lambda k: table[k]), 6, way=way)
    assert_close(adamx.ema_params(state, params), mean(path, weights))
    np.testing.assert_allclose(state.weight, 1 - np.prod(rates), rtol=8 * ULP)


@pytest.mark.slow
def test_without_correction_it_starts_at_the_first_parameters():
    params, state, path = run(adamx.with_ema(adamx.adam(0.01), 0.9, debias=False, start=2), 8)
    weights = [0.9**5] + [0.1 * w for w in exponential(0.9, 5)]
    assert_close(adamx.ema_params(state, params), mean(path[2:], weights))


@pytest.mark.slow
def test_a_traced_decay():
    def average(decay):
        tx, params = adamx.with_ema(optax.sgd(0.1), decay), jnp.ones(3)
        params, state = adamx.step(tx, params, tx.init(params), params)
        return adamx.ema_params(state, params)

    np.testing.assert_allclose(jax.vmap(average)(jnp.array([0.5, 0.999])), 0.9, rtol=4 * ULP)


@pytest.mark.slow
def test_a_slow_drift_is_followed_where_an_average_in_bfloat16_stalls():
    # A step moves θ by 2^-16, exactly, and an average of 1000 steps by as much: less than half a bfloat16 unit.
    tx = adamx.with_ema(adamx.with_master_weights(optax.sgd(2.0**-16)), 0.999)
    params, steps = jnp.full(64, 1.0, jnp.bfloat16), 4000

    def body(carry, _):
        params, state, naive = carry
        params, state = adamx.step(tx, -jnp.ones_like(params), state, params)
        return (params, state, optax.incremental_update(params, naive, 0.001)), None

    start = (params, tx.init(params), params)
    (params, state, naive), _ = jax.jit(lambda: jax.lax.scan(body, start, length=steps))()
    path = 1 + 2.0**-16 * np.arange(1, steps + 1)
    exact = np.average(path, weights=0.999 ** np.arange(steps)[::-1])
    np.testing.assert_allclose(adamx.ema_params(state, params, "float32"), exact, rtol=2e-6)
    assert naive.dtype == "bfloat16"
    assert np.abs(np.asarray(naive, np.float64) - exact).min() > 0.04


# A stored average is off by less than three units in the last place of what stores it.
STORED = {"bfloat16": 3 * 2.0**-7, "float16": 3 * 2.0**-10, "float8_e4m3fn": 3 * 2.0**-3, INT8: 3 * 2.0**-4}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", STORED, ids=str)
def test_stored_narrow_it_follows_float64(dtype):
    random = np.random.default_rng(0)
    walk = jnp.asarray(1 + np.cumsum(random.standard_normal((4000, 128)), 0) * 1e-3, jnp.float32)
    tx = adamx.with_ema(optax.sgd(1.0), 0.999, dtype=dtype)
    start = walk[0], tx.init(walk[0])

    def body(carry, after):
        return adamx.step(tx, carry[0] - after, carry[1], carry[0]), None

    (params, state), _ = jax.jit(lambda: jax.lax.scan(body, start, walk[1:]))()
    exact = np.average(np.asarray(walk[1:], np.float64), 0, 0.999 ** np.arange(len(walk) - 1)[::-1])
    error = np.asarray(adamx.ema_params(state, params)) / exact - 1
    assert np.abs(error).max() < STORED[dtype]
    assert abs(error.mean()) < STORED[dtype] / 8


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [None, "bfloat16", "float16", INT8])
@pytest.mark.parametrize("arguments", [{}, {"every": 2, "debias": False}])
def test_types_never_move(dtype, arguments):
    tx = adamx.with_ema(adamx.adam(0.1), 0.99, dtype=dtype, **arguments)
    params = {"w": jnp.ones((2, 64), jnp.bfloat16), "none": None, "e": jnp.zeros((0, 16)), "c": jnp.ones(3), "s": 1.0}
    state = tx.init(params)
    with jax.numpy_dtype_promotion("strict"):
        after = jax.eval_shape(
            lambda: jax.lax.scan(lambda s, _: (tx.update(params, s, params)[1], None), state, length=2)
        )
    assert jax.tree.map(jnp.shape, after[0]) == jax.tree.map(jnp.shape, state)
    assert adamx.interop.check_restored(tx, state, params) is state
    assert adamx.state_bytes(state).leaves["w"][1] == 128 * (8 + {None: 4, "bfloat16": 2}.get(dtype, 0)) or dtype
    for empty in ({}, None, {"a": None}):
        adamx.step(tx, empty, tx.init(empty), empty) if empty is not None else tx.init(empty)


@pytest.mark.slow
def test_wide_complex_and_integer_leaves(x64):
    params = {"d": jnp.ones(3), "z": jnp.ones(3, "complex128"), "i": jnp.arange(3)}
    tx = adamx.with_ema(optax.masked(adamx.adam(0.1), {"d": True, "z": True, "i": False}), 0.9)
    state, path = tx.init(params), []
    assert (state.ema["d"].dtype, state.ema["z"].dtype, state.weight.dtype) == ("float64", "complex128", "float64")
    for _ in range(3):
        updates, state = jax.jit(tx.update)({**params, "i": jnp.zeros(3, int)}, state, params)
        params = optax.apply_updates(params, updates)
        path.append({k: np.asarray(params[k]) for k in "dz"})
    got, expected = adamx.ema_params(state, params), mean(path, exponential(0.9, 3))
    for k in "dz":
        np.testing.assert_allclose(got[k], expected[k], rtol=1e-14)
    assert adamx.ema_params(state, params, "float32")["z"].dtype == "complex64"
    np.testing.assert_array_equal(got["i"], params["i"])


def test_errors():
    tx, params = adamx.with_ema(adamx.adam(0.1), 0.9), {"w": jnp.ones(2)}
    state = tx.init(params)
    for arguments, kind, words in (
        ((1.0,), ValueError, r"decay must be in \[0, 1\), got 1"),
        (("slow",), TypeError, "decay must be a real number"),
        ((0.9, 0), ValueError, "every must be at least 1, got 0"),
        ((0.9, 1.5), TypeError, "every must be an integer"),
    ):
        with pytest.raises(kind, match=words):
            adamx.with_ema(adamx.adam(0.1), *arguments)
    with pytest.raises(ValueError, match="start must be at least 0"):
        adamx.with_ema(adamx.adam(0.1), 0.9, start=-1)
    with pytest.raises(TypeError, match="debias must be True or False"):
        adamx.with_ema(adamx.adam(0.1), 0.9, debias=None)
    with pytest.raises(ValueError, match="rounds to nearest, where an average of parameters stalls"):
        adamx.with_ema(adamx.adam(0.1), 0.9, dtype=adamx.storage.Float("bfloat16", stochastic=False))
    with pytest.raises(TypeError, match="dtype must be a real floating dtype"):
        adamx.with_ema(adamx.adam(0.1), 0.9, dtype="int32")
    with pytest.raises(TypeError, match="the value of the decay schedule <lambda>"):
        adamx.with_ema(adamx.adam(0.1), lambda k: "much").init(params)
    with pytest.raises(ValueError, match=r"with_ema needs the parameters: tx.update\(gradients, state, params\)"):
        tx.update(params, state)
    with pytest.raises(TypeError, match="expected the state that init returned, EmaState, got tuple"):
        adamx.step(tx, params, state.inner, params)
    with pytest.raises(ValueError, match=r"parameter at w has shape \(3,\), its average has shape \(2,\)"):
        adamx.step(tx, {"w": jnp.ones(3)}, state, {"w": jnp.ones(3)})
    with pytest.raises(ValueError, match="structure of the average tree: missing w"):
        tx.update({}, state, {})
    behind = adamx.chain(tx, adamx.scale_by_lr(0.1))
    with pytest.raises(ValueError, match=r"stages of a chain stand behind it.*adamx\.with_ema\(adamx\.chain"):
        adamx.step(behind, params, behind.init(params), params)
    with pytest.raises(TypeError, match="expected a state with an EmaState in it, got tuple: wrap tx in with_ema"):
        adamx.ema_params(state.inner, params)
    with pytest.raises(ValueError, match="the state has an average of w, which is no leaf of params"):
        adamx.ema_params(state, {"v": jnp.ones(2)})
    assert isinstance(state, EmaState)
