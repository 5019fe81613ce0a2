import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx

LARGEST = float(np.finfo(np.float32).max)


def run(tx, gradients):
    """All updates and the last state."""

    def step(state, g):
        u, state = tx.update(g, state)
        return state, u

    state = tx.init(jax.tree.map(lambda g: jnp.zeros_like(g[0]), gradients))
    return jax.jit(lambda s, g: jax.lax.scan(step, s, g)[::-1])(state, gradients)


def exact(gradients, b1=0.9, b2=0.999, eps=1e-8):
    """Algorithm 2 of the paper in float64."""
    m, u, found = 0.0, 0.0, []
    for t, g in enumerate(np.asarray(gradients, np.float64), start=1):
        m, u = b1 * m + (1 - b1) * g, np.maximum(b2 * u, np.abs(g) + eps)
        found.append(m / (1 - b1**t) / u)
    return np.stack(found)


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def test_is_algorithm_2_of_the_paper():
    g = normal(200, 5)
    found, state = run(adamx.optimizers.scale_by_adamax(), g)
    # β2 is off by 1.3e-8 in float32, which 200 steps of decay add up to 3e-6; rounding adds less.
    np.testing.assert_allclose(found, exact(g), rtol=5e-6, atol=1e-6)
    assert state.count == 200


@pytest.mark.parametrize("b1", [0.0, 0.5, 0.9])
def test_no_step_is_longer_than_the_rate(b1):
    # |m̂| <= Σ a_i |g_i| with weights that add up to 1, and u >= β2^(t-i) |g_i|: at most (1-β1)/(1-β1/β2).
    g = normal(300, 50) ** 9
    found, _ = run(adamx.adamax(1.0, b1=b1), g)
    assert 0.9 < np.abs(found).max() <= (1 - b1) / (1 - b1 / 0.999) + 1e-6


def test_is_the_limit_of_the_root_of_a_mean_of_powers():
    g, p = np.asarray(normal(40, 3), np.float64), 400.0
    _, state = run(adamx.optimizers.scale_by_adamax(b2=0.9, eps=0.0), jnp.asarray(g, jnp.float32))
    powers = sum(0.9 ** (p * (39 - t)) * np.abs(row) ** p for t, row in enumerate(g))
    np.testing.assert_allclose(state.nu, ((1 - 0.9**p) * powers) ** (1 / p), rtol=0.01)


def test_gradients_of_any_size_make_the_same_steps():
    g = normal(30, 4)
    small, _ = run(adamx.optimizers.scale_by_adamax(eps=0.0), g)
    for scale in (2.0**-100, 2.0**120):
        np.testing.assert_array_equal(run(adamx.optimizers.scale_by_adamax(eps=0.0), g * scale)[0], small)


@pytest.mark.parametrize("b1", [0.0, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64])
def test_the_largest_floats(dtype, b1):
    g = jnp.full((1000, 3), LARGEST if dtype == jnp.float32 else LARGEST * (1 + 1j), dtype)
    found, state = run(adamx.optimizers.scale_by_adamax(b1=b1), g)
    assert all(np.isfinite(x).all() for x in (found, state.mu, state.nu))
    np.testing.assert_allclose(np.abs(found.real), 1.0, rtol=0.01)  # m stays 2^-7 below the largest float


def test_without_epsilon_zeros_stay_zero():
    found, _ = run(adamx.optimizers.scale_by_adamax(eps=0.0), jnp.asarray([[0.0, 1.0]] * 3))
    np.testing.assert_array_equal(found[:, 0], 0.0)
    np.testing.assert_allclose(found[:, 1], 1.0, rtol=1e-6)


def test_infinite_and_nan_gradients_show():
    for bad in (np.inf, -np.inf, np.nan):
        found, _ = run(adamx.optimizers.scale_by_adamax(), jnp.asarray([[bad, 1.0]]))
        assert not np.isfinite(found[0, 0])
        assert np.isfinite(found[0, 1])


def test_precise_decays_at_the_rate_that_was_asked_for():
    b2, g = 0.999999, np.zeros((10**5, 1), np.float32)
    g[0] = 1.0
    ratio = lambda precise: float(
        run(adamx.optimizers.scale_by_adamax(b2=b2, precise=precise), jnp.asarray(g))[1].nu[0]
    )
    truth = b2 ** (len(g) - 1)
    assert abs(ratio(True) / truth - 1) < 1e-4 < abs(ratio(False) / truth - 1)


def test_by_hand_is_the_alias_also_with_nesterov_between():
    g = normal(20, 3)
    stages = (
        adamx.optimizers.scale_by_infinity_moments(),
        adamx.optimizers.divide_by_infinity_norm(),
        adamx.scale_by_lr(0.1),
    )
    np.testing.assert_array_equal(run(optax.chain(*stages), g)[0], run(adamx.adamax(0.1), g)[0])
    ahead, _ = run(optax.chain(stages[0], adamx.nesterov(), stages[1]), g)
    assert not np.allclose(ahead, run(adamx.optimizers.scale_by_adamax(), g)[0])


@pytest.mark.parametrize(
    "stage",
    [adamx.bias_correction, adamx.uncorrected, adamx.optimizers.rectified_bias_correction],
    ids=lambda s: s.__name__,
)
def test_a_stage_that_would_take_the_root_is_refused(stage):
    tx = optax.chain(adamx.optimizers.scale_by_infinity_moments(), stage())
    with pytest.raises(TypeError, match=rf"{stage.__name__}\(\) takes a v that averages squares.*divide_by_infinity"):
        tx.update(jnp.ones(1), tx.init(jnp.ones(1)))


def test_squares_are_refused_by_the_quotient():
    tx = optax.chain(adamx.scale_by_moments(), adamx.optimizers.divide_by_infinity_norm())
    with pytest.raises(TypeError, match=r"got Moments with a v that averages squares: put bias_correction\(\) behind"):
        tx.update(jnp.ones(1), tx.init(jnp.ones(1)))


def test_decay_is_that_of_adamw():
    params = jnp.asarray([100.0])
    plain, decayed = adamx.adamax(0.1), adamx.adamaxw(0.1, weight_decay=0.01)
    u, _ = plain.update(jnp.ones(1), plain.init(params), params)
    w, _ = decayed.update(jnp.ones(1), decayed.init(params), params)
    np.testing.assert_allclose(w - u, -0.1 * 0.01 * 100, rtol=1e-5)
