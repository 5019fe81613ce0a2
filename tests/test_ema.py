"""The average of the parameters, against float64, in both ways to run a chain."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.ema import EmaState
from tests.backends import composed, differing, jitted, needs_kernel

ULP = 2.0**-23
INT8 = adamx.storage.Int8(32, 0)
SHAPES = {"dense/kernel": (40, 128), "dense/bias": (128,), "scale": ()}
WAYS = {"step": jitted, "update": composed}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def tree(seed, dtype="float32"):
    random = np.random.default_rng(seed)
    return {k: jnp.asarray(random.standard_normal(shape), dtype) for k, shape in SHAPES.items()}


def run(tx, steps, dtype="float32", way=jitted, read=lambda state, params: params):
    """Parameters and state after some steps, and what was read of both after each."""
    params, step, path = tree(0, dtype), way(tx), []
    state = tx.init(params)
    for t in range(steps):
        params, state = step(params, state, tree(t + 1, dtype))
        path.append(jax.tree.map(lambda p: np.asarray(p, np.float64), read(state, params)))
    return params, state, path


def mean(path, weights):
    """The mean of the parameters of each step with these weights, in float64."""
    total = sum(weights)
    return jax.tree.map(lambda *p: sum(w * x for w, x in zip(weights, p, strict=True)) / total, *path)


def exponential(d, n):
    return [d ** (n - 1 - i) for i in range(n)]


def assert_close(got, expected, ulps=8.0):
    """Within some units in the last place of the largest element of a leaf."""
    for a, b in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), b, rtol=0, atol=ulps * ULP * np.abs(b).max())


@each_way
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.9999])
def test_it_is_the_corrected_average_of_the_parameters(decay, way):
    tx = adamx.with_ema(adamx.adamw(0.01), decay)
    params, state, path = run(tx, 12, way=way)
    expected, inner, _ = run(adamx.adamw(0.01), 12, way=way)
    assert differing((params, state.inner), (expected, inner)) == []
    assert_close(adamx.ema_params(state, params), mean(path, exponential(decay, 12)))
    np.testing.assert_allclose(state.weight, -np.expm1(12 * np.log(decay)) if decay else 1, rtol=2 * ULP)


@each_way
@pytest.mark.parametrize(("every", "start"), [(1, 4), (3, 0), (2, 5)])
def test_taken_once_in_so_many_steps_from_a_start_on(every, start, way):
    params, state, path = run(adamx.with_ema(adamx.adam(0.01), 0.8, every, start=start), 12, way=way)
    taken = path[start:][every - 1 :: every]
    assert int(state.count) == 12
    assert_close(adamx.ema_params(state, params), mean(taken, exponential(0.8, len(taken))))


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


def test_without_correction_it_starts_at_the_first_parameters():
    params, state, path = run(adamx.with_ema(adamx.adam(0.01), 0.9, debias=False, start=2), 8)
    weights = [0.9**5] + [0.1 * w for w in exponential(0.9, 5)]
    assert_close(adamx.ema_params(state, params), mean(path[2:], weights))


def test_a_traced_decay():
    def average(decay):
        tx, params = adamx.with_ema(optax.sgd(0.1), decay), jnp.ones(3)
        params, state = adamx.step(tx, params, tx.init(params), params)
        return adamx.ema_params(state, params)

    np.testing.assert_allclose(jax.vmap(average)(jnp.array([0.5, 0.999])), 0.9, rtol=4 * ULP)


HALF = {
    "outside": lambda tx: adamx.with_ema(adamx.with_master_weights(tx), 0.9),
    "inside": lambda tx: adamx.with_master_weights(adamx.with_ema(tx, 0.9)),
    "in a chain": lambda tx: adamx.with_ema(adamx.chain(optax.identity(), adamx.with_master_weights(tx)), 0.9),
    "twice": lambda tx: adamx.with_master_weights(adamx.with_ema(adamx.with_master_weights(tx), 0.9)),
}


@pytest.mark.slow
@each_way
@pytest.mark.parametrize("name", HALF)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_behind_half_precision_it_is_that_of_the_float32_weights(name, dtype, way):
    params, state, path = run(HALF[name](adamx.adam(0.001)), 10, dtype, way, adamx.master_params)
    got = adamx.ema_params(state, params, "float32")
    assert_close(got, mean(path, exponential(0.9, 10)))
    rounded = adamx.ema_params(state, params)
    assert differing(rounded, jax.tree.map(lambda x: x.astype(dtype), got)) == []


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e5m2"])
def test_without_master_weights_it_is_that_of_the_parameters_as_they_land(dtype):
    for make in (lambda tx: tx, adamx.with_stochastic_rounding):
        params, state, path = run(adamx.with_ema(make(adamx.adam(0.01)), 0.9), 6, dtype)
        assert_close(adamx.ema_params(state, params, "float32"), mean(path, exponential(0.9, 6)))
        if dtype == "bfloat16":  # optax.apply_updates adds nothing to float8
            again = run(adamx.with_ema(make(adamx.adam(0.01)), 0.9), 6, dtype, composed)
            assert differing((params, state.ema), (again[0], again[1].ema)) == []


@pytest.mark.slow
def test_a_slow_drift_is_followed_where_an_average_in_bfloat16_stalls():
    # A step moves θ by 2e-5 of it, and an average of 1000 steps, which lags behind by a fiftieth, by as much.
    tx = adamx.with_ema(adamx.with_master_weights(optax.sgd(2e-5)), 0.999)
    params, steps = jnp.full(64, 1.0, jnp.bfloat16), 4000
    step = jitted(tx)

    def body(carry, _):
        params, state, naive = carry
        params, state = step(params, state, -jnp.ones_like(params))
        return (params, state, optax.incremental_update(params, naive, 0.001).astype(jnp.bfloat16)), None

    start = (params, tx.init(params), params)
    (params, state, naive), _ = jax.lax.scan(body, start, length=steps)
    path = 1 + 2e-5 * np.arange(1, steps + 1)
    exact = np.average(path, weights=0.999 ** np.arange(steps)[::-1])
    np.testing.assert_allclose(adamx.ema_params(state, params, "float32"), exact, rtol=2e-5)
    assert np.abs(np.asarray(naive, np.float64) - exact).min() > 0.04


# What a stored average is off by: a few units in the last place of what stores it.
STORED = {"bfloat16": 3 * 2.0**-8, "float16": 3 * 2.0**-11, "float8_e4m3fn": 0.4, INT8: 0.2}


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


CALLS = {
    "plain": (lambda tx: adamx.with_ema(tx, 0.9), "float32"),
    "rarely": (lambda tx: adamx.with_ema(adamx.chain(adamx.clip_by_global_norm(1.0), tx), 0.9, 4), "float32"),
    "masters inside": (lambda tx: adamx.with_ema(adamx.with_master_weights(tx), 0.9, 2), "bfloat16"),
    "masters around": (lambda tx: adamx.with_master_weights(adamx.with_ema(tx, 0.9)), "bfloat16"),
    "guard": (lambda tx: adamx.skip_nonfinite(adamx.with_ema(tx, 0.9)), "float32"),
}


@needs_kernel
@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_the_one_pass_is_kept_and_nothing_is_copied(name):
    make, dtype = CALLS[name]
    params = {str(i): jnp.ones((256, 256), dtype) for i in range(4)}
    tx = make(adamx.adamw(0.01))
    step = jax.jit(lambda p, s, g: adamx.step(tx, g, s, p), donate_argnums=(0, 1)).lower(
        params, tx.init(params), params
    )
    assert step.as_text().count("@adamx_step") == 1
    if name != "guard" or jax.__version_info__ >= (0, 7):  # where the guard itself copies
        assert step.compile().memory_analysis().temp_size_in_bytes < 0.01 * 4 * 4 * 256 * 256


def test_a_skipped_step_leaves_the_average_alone():
    tx, params = adamx.skip_nonfinite(adamx.with_ema(adamx.adam(0.1), 0.9, 2)), tree(0)
    state = tx.init(params)
    for t in range(4):
        before, gradients = state, tree(t)
        if t % 2:
            gradients["scale"] = gradients["scale"] * jnp.nan
        params, state = jitted(tx)(params, state, gradients)
        assert (differing(state.inner, before.inner) == []) == bool(t % 2)
    assert int(state.inner.count) == 2


def test_found_anywhere_and_the_parameters_where_there_is_none():
    params = tree(0)
    tx = adamx.skip_nonfinite(optax.chain(optax.masked(adamx.with_ema(adamx.adam(0.1), 0.5), adamx.match("dense/"))))
    moved, state = jitted(tx)(params, tx.init(params), tree(1))
    moved, state = jitted(tx)(moved, state, tree(2))
    got = jax.jit(adamx.ema_params)(state, moved)
    assert differing({"scale": got["scale"]}, {"scale": moved["scale"]}) == []
    assert differing({k: got[k] for k in ("dense/bias", "dense/kernel")}, moved) != []
    groups = optax.partition({g: adamx.with_ema(adamx.adam(0.1), 0.5) for g in (True, False)}, adamx.match("dense/"))
    _, state, path = run(groups, 3)
    assert_close(adamx.ema_params(state, moved), mean(path, exponential(0.5, 3)))
    fresh = adamx.with_ema(adamx.adam(0.1), 0.5, start=9)
    assert differing(adamx.ema_params(run(fresh, 3)[1], params), params) == []
    assert adamx.ema_params(fresh.init(params), params, "float16")["scale"].dtype == "float16"


def test_two_averages_at_once():
    tx = adamx.with_ema(adamx.with_ema(adamx.adam(0.1), 0.5), 0.9)
    params, state, path = run(tx, 4)
    assert_close(adamx.ema_params(state, params), mean(path, exponential(0.9, 4)))
    assert_close(adamx.ema_params(state.inner, params), mean(path, exponential(0.5, 4)))
    with pytest.raises(TypeError, match="two EmaState with an average of dense/bias"):
        adamx.ema_params((state, state.inner), params)


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
    with pytest.raises(ValueError, match=r"1 stages of a chain stand behind it.*adamx\.with_ema\(adamx\.chain"):
        behind = adamx.chain(tx, adamx.scale_by_lr(0.1))
        adamx.step(behind, params, behind.init(params), params)
    with pytest.raises(TypeError, match="expected a state with an EmaState in it, got tuple: wrap tx in with_ema"):
        adamx.ema_params(state.inner, params)
    with pytest.raises(ValueError, match="the state has an average of w, which is no leaf of params"):
        adamx.ema_params(state, {"v": jnp.ones(2)})
    assert isinstance(state, EmaState)
