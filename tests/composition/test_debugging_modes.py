"""JAX's debugging modes, in which nothing of ours raises or shows a NaN where nothing is wrong."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from tests.family import FAMILY, each, normal


@contextlib.contextmanager
def wide_types():
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", False)


@contextlib.contextmanager
def every_check():
    """All modes that look on; what is right in all of them together is right in each."""
    with contextlib.ExitStack() as modes:
        for mode in (jax.debug_nans(True), jax.debug_infs(True), jax.checking_leaks()):
            modes.enter_context(mode)
        for mode in (jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise")):
            modes.enter_context(mode)
        yield


MODES = {"every check": every_check, "op by op": jax.disable_jit, "x64": wide_types}
each_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
CODES = adamx.storage.Int8(min_size=0, block_size=16)
STORAGES = {
    "float32": {},
    "bfloat16": {"mu_dtype": "bfloat16", "nu_dtype": "bfloat16"},
    "float8": {"mu_dtype": "float8_e4m3fn", "nu_dtype": "float8_e4m3fn"},
    "int8": {"mu_dtype": CODES, "nu_dtype": CODES},
    "precise": {"precise": True},
}
WRAPPERS = {
    "master weights": adamx.with_master_weights,
    "stochastic rounding": adamx.with_stochastic_rounding,
    "guard": adamx.skip_nonfinite,
    "spikes": adamx.skip_spikes,
    "average": lambda tx: adamx.with_ema(tx, 0.9, 2),
    "clipped": lambda tx: optax.chain(optax.clip_by_global_norm(1.0), tx),
    "factors": lambda tx: optax.chain(tx, adamx.scale_by_path({"w": 0.5})),
}


def params_of(dtype):
    """Ordinary numbers, a scalar, zeros and a leaf without elements."""
    return {"w": normal(0, 3, 32, dtype=dtype), "s": jnp.ones((), dtype), "e": jnp.zeros((0, 3), dtype)}


def two_steps(tx, dtype=jnp.float32):
    """One update op by op and one compiled step."""
    params = params_of(dtype)
    gradients = {**params, "w": params["w"].at[0].set(jnp.zeros((), dtype))}
    updates, state = tx.update(gradients, tx.init(params), params)
    params = jax.tree.map(lambda p, u: p + u.astype(p.dtype), params, updates)
    return jax.jit(lambda p, s: adamx.step(tx, gradients, s, p))(params, state)


@pytest.mark.slow
@each_mode
@each
def test_every_optimizer(entry, mode):
    with mode():
        two_steps(entry.make(optax.linear_schedule(0.1, 0.0, 9)))


@pytest.mark.slow
@each_mode
@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
@pytest.mark.parametrize("name", ["adamw", "adopt"])
def test_every_storage(name, storage, mode):
    with mode():
        two_steps(FAMILY[name].make(0.1, **storage))


@pytest.mark.slow
@each_mode
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_every_wrapper(wrap, dtype, mode):
    with mode():
        two_steps(wrap(adamx.adamw(0.1)), dtype)


@pytest.mark.slow
@each_mode
@pytest.mark.parametrize("rate", [None, 0.1])
def test_the_probe(rate, mode):
    tx = optax.chain(adamx.scale_by_moments(), adamx.diagnostics.probe(rate), adamx.bias_correction())
    with mode():
        _, state = two_steps(tx)
        found = adamx.diagnostics.diagnose(state)["w"]
    assert np.isnan([found.update_ratio, found.stalled]).tolist() == [rate is None] * 2
    assert np.isfinite(found[:6]).all()


def far(x):
    return jnp.sum((x - jnp.asarray(3, x.dtype)) ** 2)


@pytest.mark.slow
@each_mode
@pytest.mark.parametrize("batches", [None, [(), ()]])
def test_minimize(batches, mode):
    fun = far if batches is None else lambda x, _: far(x)
    with mode():
        found = adamx.minimize(fun, jnp.zeros(3), adamx.adam(0.1), max_steps=3, batches=batches)
    assert found.steps == len(found.history) == (3 if batches is None else 2)


@pytest.mark.slow
@each_mode
def test_minimize_under_jit_that_converges_before_its_last_step(mode):
    def run():  # a new function each time: JAX does not trace one again because a mode has changed
        return jax.jit(lambda start: adamx.minimize(far, start, adamx.adam(0.1), max_steps=400, atol=1e-2))(
            jnp.zeros(3)
        )

    with mode():
        found = run()
    assert adamx.loop.StopReason(int(found.stopped)) is adamx.loop.StopReason.CONVERGED
    assert np.isfinite(found.history[: int(found.steps)]).all()
    quiet = run()
    assert np.isnan(quiet.history[int(quiet.steps) :]).all()


@pytest.mark.slow
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_guard_skips_a_faulty_gradient_without_a_word_from_debug_nans(bad, dtype):
    params, gradients = jnp.ones(4, dtype), jnp.asarray([1.0, bad, 1.0, 1.0], dtype)
    for tx in (
        adamx.skip_nonfinite(adamx.adamw(0.1)),
        adamx.skip_nonfinite(adamx.with_master_weights(adamx.adam(0.1))),
    ):
        state = tx.init(params)
        with jax.debug_nans(True), jax.debug_infs(True):
            for step in (adamx.step, jax.jit(adamx.step, static_argnums=0)):
                moved, after = step(tx, gradients, state, params)
                np.testing.assert_array_equal(moved.astype(jnp.float32), 1)
                assert int(after.skipped) == 1


def test_without_a_guard_debug_nans_shows_the_faulty_gradient():
    tx, params = adamx.adam(0.1), jnp.ones(2)
    state = tx.init(params)
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        tx.update(jnp.asarray([1.0, jnp.nan]), state)
