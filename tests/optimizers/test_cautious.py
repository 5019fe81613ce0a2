import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx

ULP = 2.0**-23


def oracle(theta, gradients, alpha, beta1=0.9, beta2=0.999, eps=1e-8, lam=0.0, xi=1e-3):
    """Cautious AdamW: the update times φ = [u g > 0], divided by the mean of φ, in float64."""
    m, v, path = np.zeros_like(theta), np.zeros_like(theta), []
    for t, g in enumerate(gradients, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        u = m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps)
        phi = (u * g > 0).astype(np.float64)
        theta = theta - alpha * (u * phi / max(phi.mean(), xi) + lam * theta)
        path.append(theta)
    return np.stack(path)


def by_hand(eps=1e-3, *between):
    stages = adamx.scale_by_moments(), *between, adamx.optimizers.cautious(eps), adamx.bias_correction()
    return optax.chain(*stages, adamx.scale_by_lr(1.0))


@pytest.mark.parametrize("lam", [0.0, 0.1])
def test_float64_is_the_paper(lam, x64, noise, run):
    g, theta = noise(0), np.linspace(-1, 1, 24)
    _, path = run(adamx.cautious_adamw(0.01, weight_decay=lam), jnp.asarray(g), jnp.asarray(theta))
    np.testing.assert_allclose(path, oracle(theta, g, 0.01, lam=lam), rtol=0, atol=1e-12)


def test_float32_is_the_paper(noise, run):
    # 1 - b2**t is off by up to 2^-24 / (1 - b2) of itself, of which the root takes half; the rest is a few roundings of
    # the terms of m, which are at most 4 times √v here and lengthened 24 times at most.
    g = noise(0)
    updates, _ = run(by_hand(), jnp.asarray(g, jnp.float32), jnp.zeros(24))
    exact = np.diff(oracle(np.zeros(24), g, 1.0), axis=0, prepend=0.0)
    np.testing.assert_allclose(updates, exact, rtol=2.0**-24 / 0.001, atol=24 * ULP)


@pytest.mark.slow
@pytest.mark.parametrize(
    "between", [[], [adamx.nesterov], [adamx.optimizers.running_max]], ids=["adam", "nesterov", "amsgrad"]
)
def test_no_coordinate_moves_against_its_gradient(between, noise, run):
    g = jnp.asarray(noise(1), jnp.float32)
    updates, _ = run(by_hand(1e-3, *(stage() for stage in between)), g, jnp.zeros(24))
    assert float(jnp.max(updates * g)) <= 0
    stays = jnp.mean(updates[:, 1:] == 0)
    assert 0.05 < float(stays) < 0.95
    plain, _ = run(adamx.adam(1.0), g, jnp.zeros(24))
    assert float(jnp.max(plain * g)) > 0


def test_what_moves_is_lengthened_by_the_share_that_does(run):
    g = jnp.asarray([[1.0, 1.0, 1.0, 1.0], [1.0, -0.01, -0.01, -0.01]])
    masked, plain = (run(tx, g, jnp.zeros(4))[0] for tx in (by_hand(), adamx.adam(1.0)))
    np.testing.assert_array_equal(masked[1, 1:], 0.0)
    np.testing.assert_allclose(masked[1, 0], 4 * plain[1, 0], rtol=2 * ULP)
    np.testing.assert_array_equal(masked[0], plain[0])
    held = run(by_hand(0.5), g, jnp.zeros(4))[0]
    np.testing.assert_allclose(held[1, 0], 2 * plain[1, 0], rtol=2 * ULP)


@pytest.mark.slow
def test_the_share_is_that_of_a_leaf():
    tx, g = by_hand(), {"agrees": jnp.ones(4), "half": jnp.asarray([1.0, 0.0])}
    updates, _ = tx.update(g, tx.init(g))
    np.testing.assert_allclose(updates["agrees"], -1, rtol=1e-4)
    np.testing.assert_allclose(updates["half"], [-2, 0], rtol=1e-4)


def test_tiny_numbers_agree_whose_product_vanishes(run):
    g = jnp.full((2, 1), 1e-25)
    updates, _ = run(by_hand(), g, jnp.zeros(1))
    assert (updates < 0).all()


def test_stored_moments_are_those_of_adam(noise):
    g, ours, adam = jnp.asarray(noise(2), jnp.float32), by_hand(), adamx.scale_by_adam()

    def stored(tx):
        step = lambda s, row: (tx.update(row, s)[1], None)
        return jax.jit(lambda s: jax.lax.scan(step, s, g)[0])(tx.init(g[0]))

    np.testing.assert_array_equal(stored(ours)[0].mu, stored(adam).mu)


@pytest.mark.parametrize("wrong", [jnp.nan, jnp.inf])
def test_a_nan_or_infinite_gradient_shows(wrong, run):
    updates, _ = run(by_hand(), jnp.asarray([[wrong, 1.0]]), jnp.zeros(2))
    assert np.isnan(updates[0, 0])
    assert updates[0, 1] < 0


def test_with_the_quotient_of_adamax(run):
    stages = (
        adamx.optimizers.scale_by_infinity_moments(),
        adamx.optimizers.cautious(),
        adamx.optimizers.divide_by_infinity_norm(),
        adamx.scale_by_lr(1.0),
    )
    updates, _ = run(optax.chain(*stages), jnp.asarray([[1.0, 1.0], [1.0, -0.01]]), jnp.zeros(2))
    np.testing.assert_allclose(updates, [[-1, -1], [-2 / 0.999 * 0.999, 0]], rtol=1e-4)


def test_where_nothing_agrees_nothing_moves(run):
    updates, _ = run(by_hand(0.0), jnp.asarray([[1.0], [-0.01]]), jnp.zeros(1))
    np.testing.assert_array_equal(updates[1], 0.0)


def test_errors():
    with pytest.raises(TypeError, match=r"cautious\(\) takes the Moments that scale_by_moments emits"):
        adamx.optimizers.cautious().update(jnp.ones(1), optax.EmptyState())
    with pytest.raises(ValueError, match="eps must be a finite number of at least 0, got -1"):
        adamx.optimizers.cautious(-1)
    tx = optax.chain(adamx.scale_by_moments(), adamx.bias_correction(), adamx.optimizers.cautious())
    with pytest.raises(TypeError, match="takes the Moments"):
        tx.update(jnp.ones(1), tx.init(jnp.ones(1)))
