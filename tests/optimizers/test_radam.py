from decimal import Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.core.message import Weight
from adamx.optimizers.radam import rectification

B2 = (0.9, 0.99, 0.999, 0.9999, 0.999999)


def run(tx, gradients):
    """All updates, in one compiled loop."""

    def step(state, g):
        u, state = tx.update(g, state)
        return state, u

    return jax.jit(lambda s, g: jax.lax.scan(step, s, g)[1])(tx.init(jnp.zeros_like(gradients[0])), gradients)


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def exact_rectification(b2, t):
    """ρ_t and r_t, None where ρ_t < 5, in decimals enough for every difference."""
    with localcontext(prec=50):
        power, rho_inf = Decimal(b2) ** t, 2 / (1 - Decimal(b2)) - 1
        rho = rho_inf - 2 * t * power / (1 - power)
        ratio = (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
        return float(rho), float(ratio.sqrt()) if rho >= 5 else None


def exact(gradients, b1=0.9, b2=0.999, eps=1e-8):
    """Algorithm 2 of the paper, with ε and with 5 in place of 4, in float64."""
    m, v, found = 0.0, 0.0, []
    for t, g in enumerate(np.asarray(gradients, np.float64), start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        m_hat, r = m / (1 - b1**t), exact_rectification(b2, t)[1]
        found.append(m_hat if r is None else r * m_hat / (np.sqrt(v / (1 - b2**t)) + eps))
    return np.stack(found)


@pytest.mark.parametrize("b2", [0.5, 0.99, 0.999, 0.999999])
def test_is_algorithm_2_of_the_paper(b2):
    g = normal(200, 5)
    found = run(adamx.optimizers.scale_by_radam(b2=b2, precise=True), g)
    # a random walk of 200 roundings in v; in m, where it nearly cancels, absolute
    np.testing.assert_allclose(found, exact(g, b2=b2), rtol=2e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("b2", B2)
def test_precise_rectification_has_every_digit(b2):
    counts = [*range(1, 30), 100, 10**3, 10**4, 10**6]
    tractable, r = rectification(Weight(b2, jnp.asarray(counts), True), 5.0)
    wanted = [exact_rectification(b2, t) for t in counts]
    assert list(tractable) == [rho >= 5 for rho, _ in wanted]
    np.testing.assert_allclose(r, [expected or 1.0 for _, expected in wanted], rtol=5e-7)


@pytest.mark.slow
def test_precise_rectification_of_every_count():
    for count in (2**24 + 1, 2**31 - 1):
        tractable, r = rectification(Weight(0.999, jnp.int32(count), True), 5.0)
        assert tractable
        np.testing.assert_allclose(r, 1.0, rtol=2e-7)
    tractable, r = rectification(Weight(0.0, jnp.int32(7), True), 5.0)
    assert not tractable
    assert r == 1


@pytest.mark.parametrize(("b2", "error"), [(0.999, 0.005), (0.9999, 0.5), (0.999999, 100.0)])
def test_the_plain_rectification_cancels_as_in_optax(b2, error):
    g = jnp.full((12, 1), 3.0)
    plain, peer = (run(make(b2=b2), g) for make in (adamx.optimizers.scale_by_radam, optax.scale_by_radam))
    np.testing.assert_array_equal(plain, peer)
    assert np.abs(plain / exact(g, b2=b2) - 1).max() > error
    np.testing.assert_allclose(run(adamx.optimizers.scale_by_radam(b2=b2, precise=True), g), exact(g, b2=b2), rtol=2e-6)


def test_the_first_steps_are_momentum():
    g = 100 * normal(8, 3)
    momentum = run(optax.ema(0.9, debias=True), g)
    found = run(adamx.optimizers.scale_by_radam(), g)
    np.testing.assert_array_equal(found[:5], momentum[:5])
    assert (np.abs(found[5:]) < 0.1 * np.abs(momentum[5:])).all()


def test_later_it_is_adam():
    # 1 - r² = 6e-4 at t = 10^4 and β2 = 0.999: r of the whole average is 1.
    _, r = rectification(Weight(0.999, jnp.int32(20000), True), 5.0)
    assert abs(float(r) - 1) < 1e-6


def test_the_threshold_decides_when():
    early = run(adamx.optimizers.scale_by_radam(threshold=4.0), jnp.full((8, 1), 50.0))[:, 0]
    late = run(adamx.optimizers.scale_by_radam(threshold=7.0), jnp.full((8, 1), 50.0))[:, 0]
    assert list(early < 1) == [False] * 4 + [True] * 4  # ρ_5 = 4.996
    assert list(late < 1) == [False] * 7 + [True]


def test_nesterov_is_the_stage():
    g = normal(12, 3)
    stages = adamx.scale_by_moments(), adamx.nesterov(), adamx.optimizers.rectified_bias_correction()
    np.testing.assert_array_equal(run(optax.chain(*stages), g), run(adamx.optimizers.scale_by_radam(nesterov=True), g))


@pytest.mark.slow
def test_a_derivative_by_b2_is_finite_before_the_threshold():
    def second(b2):
        tx = adamx.optimizers.scale_by_radam(b2=b2)
        _, state = tx.update(jnp.ones(()), tx.init(jnp.ones(())))
        return tx.update(jnp.ones(()), state)[0]

    assert jax.grad(second)(0.999) == 0


def test_errors():
    with pytest.raises(ValueError, match=r"threshold must be a finite number of at least 4, got 3\.9"):
        adamx.radam(0.1, threshold=3.9)
    with pytest.raises(TypeError, match="threshold must be a real number"):
        adamx.optimizers.rectified_bias_correction(threshold=None)
    stages = adamx.scale_by_moments(), adamx.optimizers.running_max(), adamx.optimizers.rectified_bias_correction()
    tx = optax.chain(*stages)
    with pytest.raises(TypeError, match=r"needs the v of scale_by_moments as it is"):
        tx.update(jnp.ones(1), tx.init(jnp.ones(1)))
    with pytest.raises(TypeError, match=r"rectified_bias_correction\(\) takes the Moments"):
        adamx.optimizers.rectified_bias_correction().update(jnp.ones(1), optax.EmptyState())
