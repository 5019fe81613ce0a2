import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx

ULP = 2.0**-23


def spiky(g):
    """The gradients with a few steps that are far larger than those before."""
    return g * np.where(np.arange(len(g)) % 40 == 39, 300.0, 1.0)[:, None]


def oracle(theta, gradients, alpha, beta1=0.9, beta2=0.999, eps=1e-8, lam=0.0):
    """Algorithm 2 of arXiv 2304.13013 line by line in float64, its v and u named m and v; also all RMS_t."""
    m, v, path, rms = np.zeros_like(theta), np.zeros_like(theta), [], []
    for t, g in enumerate(gradients, start=1):
        beta1_hat = beta1 * (1 - beta1 ** (t - 1)) / (1 - beta1**t)
        beta2_hat = beta2 * (1 - beta2 ** (t - 1)) / (1 - beta2**t)
        m = beta1_hat * m + (1 - beta1_hat) * g
        v = beta2_hat * v + (1 - beta2_hat) * g * g
        rms.append(np.sqrt(np.mean(g * g / np.maximum(v, eps * eps))))
        eta = alpha / max(1, rms[-1])
        theta = theta - eta * lam * theta - eta * m / (np.sqrt(v) + eps)
        path.append(theta)
    return np.stack(path), np.stack(rms)


@pytest.mark.parametrize(("arguments", "letters"), [({}, {}), ({"b2": 0.95}, {"beta2": 0.95})], ids=["", "b2"])
@pytest.mark.parametrize("lam", [0.0, 0.1])
def test_float64_is_the_paper(lam, arguments, letters, x64, noise, run):
    g, theta = spiky(noise(0)), np.linspace(-1, 1, 24)
    exact, rms = oracle(theta, g, 0.01, lam=lam, **letters)
    assert np.sum(rms > 1.5) >= 3
    _, path = run(adamx.stable_adamw(0.01, weight_decay=lam, **arguments), jnp.asarray(g), jnp.asarray(theta))
    np.testing.assert_allclose(path, exact, rtol=0, atol=1e-12)


def test_float32_is_the_paper(noise, run):
    # 1 - b2**t is off by up to 2^-24 / (1 - b2) of itself; the root takes half of that in the direction and in the RMS,
    # and there they add up at worst. Then a few roundings of the terms of m, at most 10 √v behind a spike.
    g = spiky(noise(1))
    exact = np.diff(oracle(np.zeros(24), g, 1.0)[0], axis=0, prepend=0.0)
    updates, _ = run(adamx.stable_adamw(1.0, weight_decay=0.0), jnp.asarray(g, jnp.float32), jnp.zeros(24))
    np.testing.assert_allclose(updates, exact, rtol=2.0**-24 / 0.001, atol=20 * ULP)


def test_a_spike_is_shortened_by_its_rms(run):
    g = jnp.ones((60, 4)).at[50].set(100.0)
    plain, clipped = (run(tx, g, jnp.zeros(4))[0] for tx in (adamx.adam(1.0), adamx.stable_adamw(1.0, weight_decay=0)))
    v = (0.001 * 100**2 + 0.999 * (1 - 0.999**50)) / (1 - 0.999**51)
    np.testing.assert_allclose(plain[50] / clipped[50], 100 / np.sqrt(v), rtol=1e-4)
    # Before it RMS is 1 give or take the rounding of its mean and its quotients.
    np.testing.assert_allclose(plain[:50], clipped[:50], rtol=4 * ULP)


def test_only_the_leaf_that_spikes_is_shortened(run):
    g = {"calm": jnp.ones((9, 2)), "spike": jnp.ones((9, 2)).at[8].set(50.0)}
    tx = adamx.stable_adamw(1.0, weight_decay=0.0)
    theta = {"calm": jnp.zeros(2), "spike": jnp.zeros(2)}
    (clipped, _), (plain, _) = run(tx, g, theta), run(adamx.adam(1.0), g, theta)
    np.testing.assert_allclose(clipped["calm"], plain["calm"], rtol=4 * ULP)
    assert (jnp.abs(clipped["spike"][8]) < 0.5 * jnp.abs(plain["spike"][8])).all()


@pytest.mark.slow
def test_steps_are_never_longer_than_those_of_adam(noise, run):
    g = jnp.asarray(spiky(noise(2)), jnp.float32)
    stages = adamx.scale_by_moments(), adamx.optimizers.clip_by_second_moment(), adamx.scale_by_lr(1.0)
    (clipped, _), (plain, _) = (run(tx, g, jnp.zeros(24)) for tx in (optax.chain(*stages), adamx.adam(1.0)))
    # To the rounding of m, whose terms are at most 10 √v behind a spike.
    assert (jnp.abs(clipped) <= jnp.abs(plain) + 10 * ULP).all()
    assert float(jnp.min(jnp.abs(clipped[39, 1:]) / jnp.abs(plain[39, 1:]))) < 0.7


def test_the_decay_is_shortened_where_it_is_given_to_the_stage(run):
    g, theta = jnp.zeros((30, 1)).at[:, 0].set(1e-3).at[29].set(10.0), jnp.ones(1)
    inside = adamx.optimizers.clip_by_second_moment(
        optax.chain(adamx.bias_correction(), adamx.add_decayed_weights(100.0))
    )
    behind = optax.chain(adamx.optimizers.clip_by_second_moment(), adamx.add_decayed_weights(100.0))
    a, b = (
        run(optax.chain(adamx.scale_by_moments(), s, adamx.scale_by_lr(1e-9)), g, theta)[0] for s in (inside, behind)
    )
    rms = 10 / np.sqrt((0.001 * 100 + 0.999 * 1e-6 * (1 - 0.999**29)) / (1 - 0.999**30))
    np.testing.assert_allclose(b[29] / a[29], rms, rtol=0.02)  # what is not decay is 1 of 100


def test_by_hand_is_the_alias(noise, run):
    g = jnp.asarray(noise(3), jnp.float32)
    by_hand = optax.chain(adamx.scale_by_moments(), adamx.optimizers.clip_by_second_moment(), adamx.scale_by_lr(0.1))
    (ours, _), (alias, _) = (run(tx, g, jnp.ones(24)) for tx in (by_hand, adamx.stable_adamw(0.1, weight_decay=0.0)))
    np.testing.assert_array_equal(ours, alias)


def test_around_another_second_stage(run):
    stage = adamx.optimizers.clip_by_second_moment(adamx.optimizers.atan2_correction(a=1.0))
    updates, _ = run(optax.chain(adamx.scale_by_moments(), stage), jnp.ones((2, 3)), jnp.zeros(3))
    np.testing.assert_allclose(updates, np.pi / 4, rtol=1e-4)


@pytest.mark.parametrize("largest", [1e21, float(np.finfo(np.float32).max)])
def test_the_squares_do_not_overflow(largest):
    # Where v is saturated, m and g are held at twice its root: Adam's step is 2, and so is RMS.
    tx, g = adamx.stable_adamw(1.0, weight_decay=0.0), jnp.full(1000, largest)
    moments = adamx.MomentsState(jnp.int32(20000), g * 0, g * 0 + 1)
    updates, _ = jax.jit(tx.update)(g, (moments, *tx.init(g)[1:]), g)
    np.testing.assert_allclose(updates, -1.0, rtol=1e-5)


def test_the_derivative_in_a_leaf_of_zeros_is_finite():
    tx, zeros = adamx.stable_adamw(1.0), jnp.zeros(3)
    slope = jax.jit(jax.jacobian(lambda g: tx.update(g, tx.init(zeros), zeros)[0]))(zeros)
    assert np.isfinite(slope).all()
    assert (jnp.diag(slope) < 0).all()


def test_without_epsilon_a_zero_stays():
    tx, g = adamx.stable_adamw(1.0, eps=0.0, weight_decay=0.0), jnp.asarray([0.0, 2.0])
    np.testing.assert_allclose(tx.update(g, tx.init(g), g)[0], [0, -1], rtol=1e-4)


def test_errors():
    with pytest.raises(TypeError, match=r"clip_by_second_moment\(\) takes the Moments that scale_by_moments emits"):
        adamx.optimizers.clip_by_second_moment().update(jnp.ones(1), optax.EmptyState())
    with pytest.raises(TypeError, match=r"got 1e-08: clip_by_second_moment\(adamx\.bias_correction\(\)\)"):
        adamx.optimizers.clip_by_second_moment(1e-8)
    with pytest.raises(ValueError, match="eps must be a finite number of at least 0, got inf"):
        adamx.optimizers.clip_by_second_moment(eps=float("inf"))
    tx = adamx.stable_adamw(0.1)
    with pytest.raises(ValueError, match="needs the parameters"):
        tx.update(jnp.ones(1), tx.init(jnp.ones(1)))
