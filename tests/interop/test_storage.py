from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.interop import check_restored, restore_as

INT8 = adamx.storage.Int8(block_size=32, min_size=0)
INT4 = adamx.storage.Int4(block_size=32, min_size=0)
OTHER_BLOCKS = adamx.storage.Int8(block_size=16, min_size=0)
PLAIN = adamx.adamw(optax.constant_schedule(1e-3))
STORAGES = {
    "float32": {},
    "bfloat16": {"mu_dtype": "bfloat16", "nu_dtype": "bfloat16"},
    "bfloat16, nearest": {"mu_dtype": "bfloat16"},
    "float16": {"nu_dtype": "float16"},
    "float8": {"mu_dtype": "float8_e4m3fn", "nu_dtype": "float8_e4m3fn"},
    "int8": {"mu_dtype": INT8, "nu_dtype": INT8},
    "int4": {"mu_dtype": INT4, "nu_dtype": INT4},
    "int4 m, int8 v": {"mu_dtype": INT4, "nu_dtype": INT8},
    "int8, other blocks": {"mu_dtype": OTHER_BLOCKS, "nu_dtype": OTHER_BLOCKS},
}
PARAMS = {"w": jnp.ones((6, 100)), "b": jnp.ones(3)}
EPS = 2.0**-24


def make(name):
    return adamx.adamw(optax.constant_schedule(1e-3), **STORAGES[name])


def gradients(seed):
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda p: jnp.asarray(random.standard_normal(p.shape), p.dtype), PARAMS)


def trained(tx, steps=5, params=PARAMS):
    state = tx.init(params)
    for t in range(steps):
        _, state = jax.jit(tx.update)(gradients(t), state, params)
    return state


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.slow
@pytest.mark.parametrize("name", STORAGES)
def test_there_and_back(name):
    narrow = make(name)
    state = trained(PLAIN)
    there = check_restored(narrow, restore_as(narrow, state, PARAMS), PARAMS)
    assert int(there[0].count) == 5
    assert_same(there[1:], state[1:])
    if hasattr(there[0], "step"):
        assert int(there[0].step) == 5
    back = check_restored(PLAIN, restore_as(PLAIN, there, PARAMS), PARAMS)
    # What was narrow once stays as it is; where two elements have become the largest of their block, after once more.
    again = restore_as(PLAIN, restore_as(narrow, back, PARAMS), PARAMS)
    third = restore_as(PLAIN, restore_as(narrow, again, PARAMS), PARAMS)
    # A scale of bfloat16 is rounded once more; codes of float8 lie elsewhere in units of another power of two.
    within = {"int4": 2.0**-6, "floa": 2.0**-4}.get(name[:4], 2.0**-20)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=within), third, again)
    if not name.startswith(("int", "float8")):
        assert_same(again, back)
    # Half of the widest gap between neighbours: float8 has three bits of fraction, a code four or five, but those of a
    # number larger by 1 in units of the scale.
    for field in ("mu", "nu"):
        x, y = getattr(back[0], field)["w"], getattr(state[0], field)["w"]
        if name.startswith("int4"):  # levels 1.7 apart, and of m a tenth of the largest m / √v
            np.testing.assert_allclose(x, y, rtol=0.3, atol=np.abs(y).max() * 0.15)
            continue
        np.testing.assert_allclose(x, y, rtol=2.0**-4, atol=np.abs(y).max() * 0.01)


@pytest.mark.slow
def test_from_one_storage_to_another():
    narrow, other = make("int8"), make("int8, other blocks")
    state = trained(narrow)
    through = restore_as(PLAIN, state, PARAMS)
    assert_same(restore_as(other, state, PARAMS), restore_as(other, through, PARAMS))


@pytest.mark.slow
def test_goes_on_as_if_it_had_always_been_so():
    # The same state, plain: what dithered bfloat16 moments become in float32 is what optax's formulas make of them.
    dithered = make("bfloat16")
    state = trained(dithered)
    plain = restore_as(PLAIN, state, PARAMS)
    assert type(plain[0]) is adamx.MomentsState
    u, _ = jax.jit(dithered.update)(gradients(9), state, PARAMS)
    w, _ = jax.jit(PLAIN.update)(gradients(9), plain, PARAMS)
    assert_same(u, w)


@pytest.mark.slow
def test_adam_becomes_amsgrad():
    adam, amsgrad = adamx.adam(1e-3), adamx.amsgrad(1e-3, nu_dtype="bfloat16")
    state = trained(adam)
    there = check_restored(amsgrad, restore_as(amsgrad, state, PARAMS), PARAMS)
    assert int(there[0].count) == 5
    assert not np.any(there[0].nu_max["w"])
    after = jax.jit(amsgrad.update)(gradients(5), there)[1][0]
    weight = 1 - 0.999**6
    np.testing.assert_allclose(after.nu_max["w"] * weight, after.nu["w"], rtol=2.0**-7)
    back = restore_as(adamx.amsgrad(1e-3), there, PARAMS)
    assert_same(back[0].nu_max, there[0].nu_max)
    assert type(restore_as(adam, there, PARAMS)[0]) is adamx.MomentsState


def test_a_maximum_is_kept():
    amsgrad = adamx.amsgrad(1e-3)
    state = trained(amsgrad)
    assert np.any(state[0].nu_max["w"])
    assert_same(restore_as(adamx.amsgrad(1e-3, nu_dtype="bfloat16"), state, PARAMS)[0].nu_max, state[0].nu_max)


@pytest.mark.slow
def test_states_of_optax():
    theirs = optax.adamw(optax.constant_schedule(1e-3))
    state = trained(theirs)
    assert_same(
        restore_as(make("int8"), state, PARAMS), restore_as(make("int8"), adamx.interop.from_optax(state), PARAMS)
    )
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    wide = adamx.adam(1e-3)
    restored = restore_as(wide, optax.adam(1e-3).init(half), half)
    assert restored[0].nu["w"].dtype == jnp.float32


@pytest.mark.slow
def test_what_stands_around_the_moments_is_carried():
    def around(tx):
        return adamx.skip_nonfinite(adamx.with_master_weights(optax.chain(optax.clip_by_global_norm(1.0), tx)))

    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    plain, narrow = around(make("float32")), around(make("int8"))
    state = trained(plain, params=half)
    there = check_restored(narrow, restore_as(narrow, state, half), half)
    assert_same(there.inner.remainder, state.inner.remainder)
    assert_same(there.skipped, state.skipped)
    check_restored(plain, restore_as(plain, there, half), half)


@pytest.mark.slow
def test_one_array_as_parameters():
    params = jnp.ones((6, 100))
    narrow = adamx.scale_by_adam(mu_dtype=INT8, nu_dtype=INT8)
    _, state = jax.jit(narrow.update)(params, narrow.init(params))
    plain = restore_as(adamx.scale_by_adam(), state, params)
    np.testing.assert_allclose(plain.mu, 0.1, rtol=1e-6)


def test_states_of_storages_that_are_refused_now_go_on():
    with mock.patch("adamx.storage.choice.check_pair"), mock.patch("adamx.core.averages.check_leaf"):  # as in 0.1
        state = trained(adamx.adam(1e-3, mu_dtype=INT8))
    both = adamx.adam(1e-3, mu_dtype=INT8, nu_dtype=INT8)
    plain = restore_as(adamx.adam(1e-3), state, PARAMS)
    assert_same(plain[0].nu, state[0].nu)
    check_restored(both, restore_as(both, state, PARAMS), PARAMS)


@pytest.mark.slow
def test_a_float16_m_that_was_an_array_goes_on():
    narrow = adamx.adam(1e-3, mu_dtype="float16", nu_dtype="float16")
    state = trained(adamx.adam(1e-3, nu_dtype="float16"))
    old = (state[0]._replace(mu=jax.tree.map(lambda m: m.astype(jnp.float16), state[0].mu)), *state[1:])
    with pytest.raises(TypeError, match=r"(?s)0/mu/w: expected float16 codes .*, got float16\n.*restore_as"):
        check_restored(narrow, old, PARAMS)
    there = check_restored(narrow, restore_as(narrow, old, PARAMS), PARAMS)
    assert_same(
        restore_as(adamx.adam(1e-3), there, PARAMS)[0].mu, jax.tree.map(lambda m: m.astype(jnp.float32), old[0].mu)
    )


CANNOT = {
    "nothing to put at 2/count": (PLAIN, adamx.adamw(1e-3)),
    "no place for 2/count": (adamx.adamw(1e-3), PLAIN),
    "no place for 0; nothing to put at 0/trace/b; nothing to put at 0/trace/w": (
        optax.sgd(1e-3, 0.9),
        adamx.adam(1e-3),
    ),
    "nothing to put at 1/nu_max/b": (
        optax.chain(adamx.scale_by_moments(), adamx.optimizers.running_max(), adamx.bias_correction()),
        optax.chain(adamx.scale_by_moments(), adamx.bias_correction(), optax.identity()),
    ),
    "nothing to put at remainder/": (adamx.with_master_weights(adamx.adam(1e-3)), adamx.adam(1e-3)),
}


@pytest.mark.parametrize("words", CANNOT)
def test_what_cannot_be_carried_is_named(words):
    tx, old = CANNOT[words]
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    with pytest.raises(TypeError, match="cannot be carried to this transformation: ") as error:
        restore_as(tx, old.init(half), half)
    assert words in str(error.value)


def test_other_parameters():
    with pytest.raises(TypeError, match=r"0/mu: w: expected \(6, 99\), got \(6, 100\)"):
        restore_as(PLAIN, trained(PLAIN), {"w": jnp.ones((6, 99)), "b": jnp.ones(3)})
    with pytest.raises(TypeError, match=r"0/mu: missing v, .*0/mu: unexpected w"):
        restore_as(PLAIN, trained(PLAIN), {"v": jnp.ones((6, 100)), "b": jnp.ones(3)})


def test_placement_is_kept():
    device = jax.devices()[0]
    state = jax.device_put(trained(PLAIN), jax.sharding.SingleDeviceSharding(device))
    assert restore_as(make("int8"), state, PARAMS)[0].nu["w"].codes.sharding.device_set == {device}
