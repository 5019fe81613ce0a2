import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx


def test_worked_example():
    stage = adamx.scale_by_moments(b1=0.2)
    moments, state = stage.update(jnp.array([10.0]), stage.init(jnp.zeros(1)))
    assert moments.count == state.count == 1
    np.testing.assert_array_equal(moments.mu, [8.0])
    np.testing.assert_array_equal(state.mu, [8.0])
    np.testing.assert_allclose(state.nu, [0.1], rtol=1e-6)


def test_second_moment_is_the_weighted_sum_of_all_squares():
    stage, b2 = adamx.scale_by_moments(b2=0.9), 0.9
    gradients = np.random.default_rng(0).standard_normal((50, 4))
    state = stage.init(jnp.zeros(4))
    for g in gradients:
        _, state = stage.update(jnp.asarray(g, jnp.float32), state)
    assert state.count == 50
    weights = (1 - b2) * b2 ** np.arange(49, -1, -1.0)
    np.testing.assert_allclose(state.nu, weights @ gradients**2, rtol=1e-5)


@pytest.mark.parametrize("params", [jnp.float16, jnp.bfloat16, jnp.float8_e4m3fn, jnp.float32])
def test_moments_of_narrow_parameters_are_float32(params):
    state = adamx.scale_by_moments().init({"w": jnp.ones(3, params)})
    assert state.mu["w"].dtype == state.nu["w"].dtype == jnp.float32


def test_moments_of_wide_and_complex_parameters(x64):
    state = adamx.scale_by_moments().init({"w": jnp.ones(3, jnp.float64), "z": jnp.ones(3, jnp.complex64)})
    assert (state.mu["w"].dtype, state.nu["w"].dtype) == (jnp.float64, jnp.float64)
    assert (state.mu["z"].dtype, state.nu["z"].dtype) == (jnp.complex64, jnp.float32)


def test_moments_keep_the_placement_of_the_parameters():
    mesh = jax.make_mesh((1,), ("x",))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    state = adamx.scale_by_moments().init(jax.device_put(jnp.ones(4), place))
    assert state.mu.sharding == state.nu.sharding == place


@pytest.mark.slow
def test_low_first_moment_is_averaged_in_float32_and_rounded_once():
    # optax multiplies a bfloat16 mu by a bfloat16 0.9, which is 0.8984.
    stage = adamx.scale_by_moments(mu_dtype=jnp.bfloat16)
    state, expected = stage.init(jnp.zeros(64)), jnp.zeros(64, jnp.bfloat16)
    for seed in range(20):
        g = jax.random.normal(jax.random.key(seed), (64,))
        wide = 0.1 * g + 0.9 * expected.astype(jnp.float32)
        expected = wide.astype(jnp.bfloat16)
        moments, state = stage.update(g, state)
        np.testing.assert_allclose(moments.mu, wide, rtol=1e-6)
    assert state.mu.dtype == jnp.bfloat16
    np.testing.assert_array_equal(state.mu, expected)


def test_wider_second_moment(x64):
    stage = adamx.scale_by_adam(nu_dtype=jnp.float64)
    u, state = stage.update(jnp.full(3, 0.5, jnp.float32), stage.init(jnp.zeros(3, jnp.float32)))
    assert (state.mu.dtype, state.nu.dtype, u.dtype) == (jnp.float32, jnp.float64, jnp.float32)


def test_narrower_storage_saturates_at_its_own_largest_number(x64):
    stage = adamx.scale_by_moments(nu_dtype=jnp.float32)
    _, state = stage.update(jnp.asarray([1e30, -1e30]), stage.init(jnp.zeros(2)))
    np.testing.assert_array_equal(state.nu, np.finfo(np.float32).max)


@pytest.mark.parametrize("precise", [False, True])
@pytest.mark.parametrize("b1", [0.0, 0.3, 0.5, 0.9, 0.99, 0.999])
def test_the_largest_gradient_for_ever_leaves_a_finite_state(b1, precise):
    largest = np.finfo(np.float32).max
    stage = adamx.scale_by_adam(b1=b1, precise=precise, nesterov=True)
    state, step = stage.init(jnp.zeros(2)), jax.jit(stage.update)
    for t in range(300):
        g = jnp.asarray([largest, largest if t % 2 else -largest])
        u, state = step(g, state)
        assert np.isfinite(u).all()
        assert np.isfinite(state.mu).all()
        assert np.isfinite(state.nu).all()


def test_a_precise_average_follows_changes_below_half_a_unit_in_the_last_place():
    """(1-β) (x - v) is 0.3 units in the last place of v: rounded to nearest, v would not move at all."""
    tx = adamx.scale_by_moments(b2=0.999999, precise=True)
    change = 0.3 * 2.0**-23 / 1e-6
    g, n = jnp.full(4096, np.sqrt(1 + change), jnp.float32), 1000
    start = adamx.MomentsState(jnp.int32(0), jnp.zeros(4096), jnp.ones(4096))
    state = jax.lax.scan(lambda s, _: (tx.update(g, s)[1], None), start, length=n)[0]
    exact = (float(g[0]) ** 2 - 1) * -np.expm1(n * np.log1p(-1e-6))
    np.testing.assert_allclose(np.mean(np.asarray(state.nu, np.float64) - 1), exact, rtol=0.01)


@pytest.mark.parametrize("which", ["mu", "nu"])
def test_a_moment_that_is_not_dithered_gets_no_random_bits_from_the_other(which):
    given = []

    class Spy:
        dithered, seed = False, 0

        def encode(self, moment, like, bits, *, square):
            given.append(bits)
            return moment.astype(like.dtype)

        def __getattr__(self, name):
            return getattr(adamx.storage.Float("bfloat16", stochastic=False), name)

    codecs = {"mu": "bfloat16", "nu": "bfloat16", which: Spy()}
    tx = adamx.scale_by_moments(mu_dtype=codecs["mu"], nu_dtype=codecs["nu"])
    x = jnp.ones(3)
    tx.update(x, tx.init(x))
    assert given == [None]
