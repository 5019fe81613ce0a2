import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.storage.choice import moment_codec

ULP = 2.0**-23
NARROW = ["bfloat16", "float16", adamx.storage.Int8(min_size=0)]
theirs = pytest.mark.skipif(not hasattr(optax.contrib, "ademamix"), reason="this optax has no ademamix")


def f_alpha(t, alpha, steps):
    """The paper's schedule of α."""
    return min(t * alpha / steps, alpha)


def f_beta3(t, beta3, beta_start, steps):
    """The paper's schedule of β3."""
    logs = np.log(beta_start), np.log(beta3)
    return min(np.exp(logs[0] * logs[1] / ((1 - t / steps) * logs[1] + t / steps * logs[0])), beta3)


def oracle(theta, gradients, eta, beta1=0.9, beta2=0.999, beta3=0.9999, alpha=5.0, eps=1e-8, lam=0.0, warm_up=None):
    """Algorithm 1 of arXiv 2409.03137 in float64; with a warm-up of so many steps for α and β3."""
    m_1, m_2, nu = (np.zeros_like(theta) for _ in range(3))
    path = []
    for t, g in enumerate(gradients, start=1):
        beta3_t = f_beta3(t, beta3, beta1, warm_up) if warm_up else beta3
        alpha_t = f_alpha(t, alpha, warm_up) if warm_up else alpha
        m_1 = beta1 * m_1 + (1 - beta1) * g
        m_2 = beta3_t * m_2 + (1 - beta3_t) * g
        nu = beta2 * nu + (1 - beta2) * g * g
        m_hat, nu_hat = m_1 / (1 - beta1**t), nu / (1 - beta2**t)
        theta = theta - eta * ((m_hat + alpha_t * m_2) / (np.sqrt(nu_hat) + eps) + lam * theta)
        path.append(theta)
    return np.stack(path)


def warm(steps, beta3=0.9999, alpha=5.0):
    return {"b3": adamx.optimizers.ademamix_b3(beta3, steps), "alpha": adamx.optimizers.ademamix_alpha(alpha, steps)}


SETTINGS = {
    "default": ({}, {}),
    "decay": ({"weight_decay": 0.1}, {"lam": 0.1}),
    "other rates": ({"b1": 0.8, "b3": 0.99, "alpha": 2.0}, {"beta1": 0.8, "beta3": 0.99, "alpha": 2.0}),
    "warm-up of 150": (warm(150), {"warm_up": 150}),
    "warm-up of 1000": (warm(1000), {"warm_up": 1000}),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_float64_is_the_paper(name, x64, noise, run):
    arguments, letters = SETTINGS[name]
    g, theta = noise(0), np.linspace(-1, 1, 24)
    _, path = run(adamx.ademamix(0.01, **arguments), jnp.asarray(g), jnp.asarray(theta))
    np.testing.assert_allclose(path, oracle(theta, g, 0.01, **letters), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["default", "warm-up of 150"])
def test_float32_is_the_paper(name, noise, run):
    # 1 - b2**t is off by up to 2^-24 / (1 - b2) of itself, of which the root takes half. The float32 exponential of the
    # warm-up is off by a unit: by 2^-24 / 1e-4 of its 1 - β3, and n by as much of what it gained in a step; α n is less
    # than m here. Then a few roundings of the terms of m, at most 4 √v.
    arguments, letters = SETTINGS[name]
    g = noise(1)
    updates, _ = run(adamx.ademamix(1.0, **arguments), jnp.asarray(g, jnp.float32), jnp.zeros(24))
    exact = np.diff(oracle(np.zeros(24), g, 1.0, **letters), axis=0, prepend=0.0)
    rtol = 2.0**-24 / (0.0001 if "warm_up" in letters else 0.001)
    np.testing.assert_allclose(updates, exact, rtol=rtol, atol=16 * ULP)


def test_without_its_weight_it_is_adam_to_the_bit(noise, run):
    g = jnp.asarray(noise(2), jnp.float32)
    ours, adam = (
        run(tx, g, jnp.ones(24)) for tx in (adamx.ademamix(0.01, alpha=0.0), adamx.adamw(0.01, weight_decay=0))
    )
    jax.tree.map(np.testing.assert_array_equal, ours, adam)


@theirs
def test_float32_has_the_updates_of_optax(noise, run):
    arguments = {"weight_decay": 0.1, "eps_root": 1e-12, "b3": 0.99}
    # Equal operations, contracted by the compiler in another loop: a unit of m and of n, whose terms are at most 4 √v.
    g = jnp.asarray(noise(3), jnp.float32)
    (ours, _), (others, _) = (
        run(f(0.01, **arguments), g, jnp.ones(24)) for f in (adamx.ademamix, optax.contrib.ademamix)
    )
    np.testing.assert_allclose(ours, others, rtol=8 * ULP, atol=0.01 * 8 * ULP)


@pytest.mark.slow
@theirs
def test_schedules_are_called_as_those_of_optax(x64, noise, run):
    arguments = {"b3": optax.linear_schedule(0.9, 0.99, 100), "alpha": optax.linear_schedule(0.0, 3.0, 150)}
    g = jnp.asarray(noise(4))
    ours, others = (run(f(0.01, **arguments), g, jnp.zeros(24))[0] for f in (adamx.ademamix, optax.contrib.ademamix))
    np.testing.assert_allclose(ours, others, rtol=0, atol=1e-14)


@theirs
def test_arguments_are_those_of_optax():
    ours, others = (inspect.signature(f).parameters for f in (adamx.ademamix, optax.contrib.ademamix))
    shared = [(p.name, p.default) for p in others.values()]
    assert [(p.name, p.default) for p in ours.values()][: len(shared)] == shared


def test_schedules_are_the_equations_of_the_paper(x64):
    alpha, b3, from_zero = (
        adamx.optimizers.ademamix_alpha(8.0, 500),
        adamx.optimizers.ademamix_b3(0.9999, 500),
        adamx.optimizers.ademamix_b3(0.99, 9, b1=0),
    )
    for count in (0, 1, 10, 250, 499, 500, 10**6, 2**31 - 1):
        np.testing.assert_allclose(alpha(jnp.int32(count)), f_alpha(count + 1, 8.0, 500), rtol=1e-13)
        np.testing.assert_allclose(b3(jnp.int32(count)), f_beta3(min(count + 1, 500), 0.9999, 0.9, 500), rtol=1e-13)
    half_lives = [np.log(0.5) / np.log(float(from_zero(count))) for count in range(9)]
    np.testing.assert_allclose(half_lives, np.arange(1, 10) / 9 * half_lives[-1], rtol=1e-9)


def test_the_slow_average_is_not_corrected_and_outlives_m(run):
    g = jnp.zeros((60, 1)).at[0].set(1.0)
    tx = optax.chain(adamx.scale_by_moments(), adamx.optimizers.slow_momentum(b3=0.999), adamx.bias_correction())
    updates, _ = run(tx, g, jnp.zeros(1))
    np.testing.assert_allclose(updates[0], 1 + 5 * 0.001, rtol=1e-4)
    m_hat = 0.1 * 0.9**59 / (1 - 0.9**60)
    v_hat = 0.001 * 0.999**59 / (1 - 0.999**60)
    np.testing.assert_allclose(updates[59], (m_hat + 5 * 0.001 * 0.999**59) / np.sqrt(v_hat), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_the_slow_average_may_be_stored_narrow(dtype):
    # To nearest, a step of 1e-4 of the way would never leave 0.
    tx = optax.chain(adamx.scale_by_moments(nu_dtype=dtype), adamx.optimizers.slow_momentum(b3=0.9999, mu_dtype=dtype))
    g, step = jnp.ones(64), jax.jit(lambda s: tx.update(g, s)[1])
    state = jax.lax.fori_loop(0, 2000, lambda _, s: tx.update(g, s)[1], tx.init(g))
    stored = state[1].mu_slow
    n = moment_codec("mu_dtype", dtype, 0.9999).decode(stored, jnp.float32)
    np.testing.assert_allclose(jnp.mean(n.astype(jnp.float32)), 1 - 0.9999**2000, rtol=0.03)
    assert jax.tree.map(jnp.result_type, step(state)) == jax.tree.map(jnp.result_type, tx.init(g))


@pytest.mark.parametrize(("precise", "low", "high"), [(True, 0, 1e-5), (False, 1e-4, 2e-4)])
def test_precise_does_not_drift(precise, low, high):
    # The float32 neighbour of 0.9999 is 1.7e-8 below it: 1.7e-4 of 1 - β3. Roundings of half a unit, as a random walk
    # over 5000 steps that n remembers, make 2e-6.
    g = (1 + 0.1 * np.random.default_rng(0).standard_normal((30000, 8))).astype(np.float32)
    exact = np.ones(8)
    for row in g.astype(np.float64):
        exact = 0.9999 * exact + 0.0001 * row
    tx = optax.chain(adamx.scale_by_moments(), adamx.optimizers.slow_momentum(b3=0.9999, precise=precise))
    state = (tx.init(g[0])[0], adamx.optimizers.SlowMomentumState(jnp.ones(8)))
    loop = jax.jit(lambda s, g: jax.lax.scan(lambda s, row: (tx.update(row, s)[1], None), s, g)[0])
    assert low <= float(np.abs(loop(state, g)[1].mu_slow / exact - 1).max()) < high


def test_the_alias_stores_both_averages_narrow():
    state = adamx.ademamix(0.1, mu_dtype="bfloat16", nu_dtype="bfloat16").init(jnp.ones(3))
    assert {str(x.dtype) for x in jax.tree.leaves(state) if x.ndim} == {"bfloat16"}


def test_a_huge_gradient_makes_no_huge_step():
    # Where v is saturated both averages are held at twice its root: 2 + 5 * 2.
    tx, g = adamx.ademamix(1.0), jnp.full(2, 1e30)
    moments = adamx.MomentsState(jnp.int32(20000), g * 0, g * 0 + 1)
    updates, _ = jax.jit(tx.update)(g, (moments, *tx.init(g)[1:]), g)
    np.testing.assert_allclose(updates, -12.0, rtol=1e-5)


def test_behind_nesterov_and_before_other_stages(run):
    stages = (
        adamx.scale_by_moments(),
        adamx.nesterov(),
        adamx.optimizers.slow_momentum(),
        adamx.optimizers.running_max(),
        adamx.optimizers.cautious(),
    )
    updates, _ = run(
        optax.chain(*stages, adamx.bias_correction(), adamx.scale_by_lr(1.0)), jnp.ones((3, 2)), jnp.ones(2)
    )
    assert (updates < 0).all()


@pytest.mark.slow
def test_a_swept_decay_rate():
    def first(b3):
        tx = adamx.ademamix(1.0, b3=b3)
        return tx.update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2))[0]

    swept = jax.vmap(first)(jnp.asarray([0.5, 0.9]))
    np.testing.assert_allclose(swept, [[-1 - 5 * 0.5] * 2, [-1 - 5 * 0.1] * 2], rtol=1e-4)


def test_errors():
    with pytest.raises(ValueError, match=r"b3 must be in \[0, 1\), got 1"):
        adamx.ademamix(0.1, b3=1)
    close = adamx.ademamix(0.1, b3=0.99999999)
    with pytest.raises(ValueError, match=r"b3=0\.99999999 is 1 in float32"):
        close.update(jnp.ones(1), close.init(jnp.ones(1)), jnp.ones(1))
    with pytest.raises(TypeError, match="precise=True needs b3 as a Python float, got a schedule"):
        adamx.ademamix(0.1, b3=optax.constant_schedule(0.9), precise=True)
    with pytest.raises(TypeError, match="the value of the alpha schedule <lambda>"):
        adamx.optimizers.slow_momentum(alpha=lambda count: "a").init(jnp.ones(1))
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        adamx.optimizers.ademamix_alpha(5.0, 0)
    with pytest.raises(ValueError, match="b1 must be in"):
        adamx.optimizers.ademamix_b3(0.999, 10, b1=1.0)
    with pytest.raises(TypeError, match=r"slow_momentum\(\) takes the Moments"):
        adamx.optimizers.slow_momentum().update(jnp.ones(1), adamx.optimizers.slow_momentum().init(jnp.ones(1)))
    moments, _ = adamx.scale_by_moments().update(jnp.ones(2), adamx.scale_by_moments().init(jnp.ones(2)))
    with pytest.raises(TypeError, match="expected the state that init returned, SlowMomentumState, got EmptyState"):
        adamx.optimizers.slow_momentum().update(moments, optax.EmptyState())
    with pytest.raises(TypeError, match=r"mu_slow at the tree itself has shape \(3,\), its mu has shape \(2,\)"):
        adamx.optimizers.slow_momentum().update(moments, adamx.optimizers.slow_momentum().init(jnp.ones(3)))
