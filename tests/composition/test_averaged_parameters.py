"""An average of the parameters under and around other wrappers."""

import jax
import jax.numpy as jnp
import optax
import pytest

import adamx
from tests.averaging import assert_close, exponential, mean, run, tree
from tests.backends import composed, differing, jitted, needs_kernel

WAYS = {"step": jitted, "update": composed}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)

HALF = {
    "outside": lambda tx: adamx.with_ema(adamx.with_master_weights(tx), 0.9),
    "inside": lambda tx: adamx.with_master_weights(adamx.with_ema(tx, 0.9)),
    "in a chain": lambda tx: adamx.with_ema(adamx.chain(optax.identity(), adamx.with_master_weights(tx)), 0.9),
    "twice": lambda tx: adamx.with_master_weights(adamx.with_ema(adamx.with_master_weights(tx), 0.9)),
}
CALLS = {
    "plain": (lambda tx, ema=adamx.with_ema: ema(tx, 0.9), "float32"),
    "rarely": (lambda tx, ema=adamx.with_ema: ema(adamx.chain(adamx.clip_by_global_norm(1.0), tx), 0.9, 4), "float32"),
    "masters inside": (lambda tx, ema=adamx.with_ema: ema(adamx.with_master_weights(tx), 0.9, 2), "bfloat16"),
    "masters around": (lambda tx, ema=adamx.with_ema: adamx.with_master_weights(ema(tx, 0.9)), "bfloat16"),
    "guard": (lambda tx, ema=adamx.with_ema: adamx.skip_nonfinite(ema(tx, 0.9)), "float32"),
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


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e5m2"])
def test_without_master_weights_it_is_that_of_the_parameters_as_they_land(dtype):
    for make in (lambda tx: tx, adamx.with_stochastic_rounding):
        for way in WAYS.values() if dtype == "bfloat16" else [jitted]:  # optax.apply_updates adds nothing to float8
            params, state, path = run(adamx.with_ema(make(adamx.adam(0.01)), 0.9), 6, dtype, way)
            assert_close(adamx.ema_params(state, params, "float32"), mean(path, exponential(0.9, 6)))


@needs_kernel
@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_the_one_pass_is_kept_and_nothing_is_copied(name):
    make, dtype = CALLS[name]
    without = make(adamx.adamw(0.01), lambda tx, *_: tx)
    params = {str(i): jnp.ones((256, 256), dtype) for i in range(4)}
    tx = make(adamx.adamw(0.01))

    def lowered(tx):
        step = jax.jit(lambda p, s, g: adamx.step(tx, g, s, p), donate_argnums=(0, 1))
        return step.lower(params, tx.init(params), params)

    assert lowered(tx).as_text().count("@adamx_step") == 1
    if name != "guard" or jax.__version_info__ >= (0, 7):  # where the guard itself copies
        own, bare = (lowered(tx).compile().memory_analysis().temp_size_in_bytes for tx in (tx, without))
        assert own - bare < 0.01 * 4 * 4 * 256 * 256


@pytest.mark.slow
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


@pytest.mark.slow
def test_found_anywhere_and_the_parameters_where_there_is_none():
    params = tree(0)
    tx = adamx.skip_nonfinite(optax.chain(optax.masked(adamx.with_ema(adamx.adam(0.1), 0.5), adamx.match("dense/"))))
    moved, state = jitted(tx)(params, tx.init(params), tree(1))
    moved, state = jitted(tx)(moved, state, tree(2))
    got = jax.jit(adamx.ema_params)(state, moved)
    assert differing({"scale": got["scale"]}, {"scale": moved["scale"]}) == []
    assert len(differing(got, moved)) == 2
    groups = optax.partition({g: adamx.with_ema(adamx.adam(0.1), 0.5) for g in (True, False)}, adamx.match("dense/"))
    _, state, path = run(groups, 3)
    assert_close(adamx.ema_params(state, moved), mean(path, exponential(0.5, 3)))
    fresh = adamx.with_ema(adamx.adam(0.1), 0.5, start=9)
    assert differing(adamx.ema_params(run(fresh, 3)[1], params), params) == []
    assert adamx.ema_params(fresh.init(params), params, "float16")["scale"].dtype == "float16"


@pytest.mark.slow
def test_two_averages_at_once():
    tx = adamx.with_ema(adamx.with_ema(adamx.adam(0.1), 0.5), 0.9)
    params, state, path = run(tx, 4)
    assert_close(adamx.ema_params(state, params), mean(path, exponential(0.9, 4)))
    assert_close(adamx.ema_params(state.inner, params), mean(path, exponential(0.5, 4)))
    with pytest.raises(TypeError, match="two EmaState with an average of dense/bias"):
        adamx.ema_params((state, state.inner), params)
