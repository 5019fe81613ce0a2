import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx

ULP = 2.0**-23
NARROW = ["bfloat16", "float16", adamx.storage.Int8(min_size=0)]
theirs = pytest.mark.skipif(not hasattr(optax.contrib, "adopt"), reason="this optax has no adopt")


def oracle(theta, gradients, alpha, beta1=0.9, beta2=0.9999, eps=1e-6, clip=lambda t: t**0.25, nesterov=False):
    """Algorithm 2 of arXiv 2411.02853 in float64: g_0 sets v, then t counts from 1."""
    g_0, *others = gradients
    m, v, path = np.zeros_like(theta), g_0 * g_0, [theta]
    for t, g in enumerate(others, start=1):
        x = np.clip(g / np.maximum(np.sqrt(v), eps), -clip(t), clip(t))
        m = beta1 * m + (1 - beta1) * x
        theta = theta - alpha * (beta1 * m + (1 - beta1) * x if nesterov else m)
        v = beta2 * v + (1 - beta2) * g * g
        path.append(theta)
    return np.stack(path)


SETTINGS = {
    "default": ({}, {}),
    "other rates": ({"b1": 0.8, "b2": 0.99, "eps": 1e-3}, {"beta1": 0.8, "beta2": 0.99, "eps": 1e-3}),
    "nesterov": ({"nesterov": True}, {"nesterov": True}),
    "Algorithm 1": ({"use_clipping": False}, {"clip": lambda t: np.inf}),
    "clip 2": ({"clip_value_fn": lambda count: 2.0}, {"clip": lambda t: 2.0}),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_float64_is_the_paper(name, x64, noise, run):
    arguments, letters = SETTINGS[name]
    g, theta = noise(0), np.linspace(-1, 1, 24)
    _, path = run(adamx.adopt(0.01, **arguments), jnp.asarray(g), jnp.asarray(theta))
    exact = oracle(theta, g, 0.01, **letters)
    assert np.abs(np.diff(exact, axis=0)).max() > 1e-3
    np.testing.assert_allclose(path, exact, rtol=0, atol=1e-12 * max(1, np.abs(exact).max()))


@pytest.mark.parametrize("precise", [False, True])
def test_float32_is_the_paper(precise, noise, run):
    # b2 in float32 is off by up to 2^-25, which v loses or gains in each of 200 steps; the root takes half of that.
    # m is the mean of quotients of at most c = 200^(1/4) < 4, each off by half a unit of 4 for the root, the quotient,
    # and both products and the sum of the mean: 5 ulp of 2, 10 of 1, at worst.
    g = noise(1)
    updates, _ = run(adamx.adopt(1.0, precise=precise), jnp.asarray(g, jnp.float32), jnp.zeros(24))
    exact = np.diff(oracle(np.zeros(24), g, 1.0), axis=0, prepend=0.0)
    np.testing.assert_allclose(updates, exact, rtol=100 * 2.0**-25, atol=10 * ULP)


def test_the_first_gradient_sets_v_and_makes_no_step():
    tx, g = adamx.optimizers.scale_by_adopt(), jnp.asarray([3.0, -0.5, 0.0])
    direction, state = tx.update(g, tx.init(g))
    np.testing.assert_array_equal(direction, 0.0)
    np.testing.assert_array_equal(state.nu, g * g)
    np.testing.assert_array_equal(state.mu, 0.0)
    assert state.count == 1


def test_v_of_the_step_does_not_know_its_gradient(run):
    g = jnp.asarray([[1.0], [0.5], [1e6]])
    updates, _ = run(adamx.adopt(1.0, b1=0.0, use_clipping=False), g, jnp.zeros(1))
    v = 1 - 0.0001 * 0.75
    np.testing.assert_allclose(updates, [[0], [-0.5], [-1e6 / np.sqrt(v)]], rtol=4 * ULP)


def test_no_quotient_exceeds_the_clip(run):
    g = jnp.full((82, 1), 1e9).at[0].set(1e-9)
    updates, _ = run(adamx.adopt(1.0, b1=0.0, b2=0.0, eps=0.0), g, jnp.zeros(1))
    np.testing.assert_allclose(updates[1], -1.0)  # 1^(1/4), for a quotient of 1e18
    g = g.at[81].set(1e38)
    updates, _ = run(adamx.adopt(1.0, b1=0.0, b2=0.0, eps=0.0), g, jnp.zeros(1))
    np.testing.assert_allclose(updates[81], -3.0, rtol=2 * ULP)  # 81^(1/4)


def test_without_epsilon_a_zero_stays_and_a_first_gradient_goes_as_far_as_the_clip(run):
    g = jnp.asarray([[0.0, 0.0], [0.0, 1e-30]])
    updates, _ = run(adamx.adopt(1.0, b1=0.5, eps=0.0), g, jnp.zeros(2))
    np.testing.assert_array_equal(updates, [[0, 0], [0, -0.5]])


def test_without_the_clip_no_quotient_overflows(run):
    g = jnp.zeros((4, 2)).at[1:, 0].set(1e30).at[1, 1].set(-1e-30)
    updates, theta = run(adamx.adopt(1e-30, eps=0.0, use_clipping=False), g, jnp.zeros(2))
    assert np.isfinite(updates).all()
    assert (jnp.sign(theta[-1]) == jnp.asarray([-1, 1])).all()


@theirs
@pytest.mark.parametrize(
    "arguments",
    [{"nesterov": True}, {}, {"use_clipping": False}],
    ids=str,
)
def test_updates_are_those_of_optax_in_float64(arguments, x64, noise, run):
    # In float32 they part by 2e-4: there the 1 - b2 of optax is that of a b2 rounded to float32.
    g, theta = jnp.asarray(noise(2)), jnp.zeros(24)
    (ours, _), (others, _) = (run(f(0.01, **arguments), g, theta) for f in (adamx.adopt, optax.contrib.adopt))
    np.testing.assert_allclose(ours, others, rtol=1e-11, atol=1e-14)


@theirs
def test_arguments_and_state_are_those_of_optax():
    ours, others = (inspect.signature(f).parameters for f in (adamx.adopt, optax.contrib.adopt))
    shared = [(p.name, p.kind) for p in others.values()]
    assert [(p.name, p.kind) for p in ours.values()][: len(shared)] == shared
    a, b = (f(0.1).init(jnp.ones(2))[0]._asdict() for f in (adamx.adopt, optax.contrib.adopt))
    assert jax.tree.structure(a) == jax.tree.structure(b)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_narrow_moments_of_a_slow_average(dtype, noise, run):
    g = jnp.asarray(np.random.default_rng(0).standard_normal((400, 64)), jnp.float32)
    exact, low = (run(adamx.adopt(1.0, **s), g, jnp.zeros(64))[0][200:] for s in ({}, {"nu_dtype": dtype}))
    assert abs(float(jnp.sum(exact * low) / jnp.sum(exact * exact)) - 1) < 0.05


@pytest.mark.slow
def test_thresholds_move_on_with_every_step():
    tx = adamx.optimizers.scale_by_adopt(nu_dtype="bfloat16")
    state = tx.init(jnp.ones(2))
    for step in (1, 2):
        _, state = tx.update(jnp.ones(2), state)
        assert state.count == step


def test_without_the_clip_m_fits_its_storage():
    tx = adamx.optimizers.scale_by_adopt(use_clipping=False, b1=0.0, mu_dtype="bfloat16")
    state = tx.init(jnp.ones(1))
    for g in (1e-6, 1e38):
        _, state = tx.update(jnp.asarray([g]), state)
    np.testing.assert_array_equal(state.mu, jnp.asarray([2.0**65], jnp.bfloat16))


@pytest.mark.parametrize(("precise", "low", "high"), [(True, 0, 2e-5), (False, 1e-4, 1)])
def test_precise_does_not_drift(precise, low, high):
    # The float32 neighbour of 0.9999 is 1.7e-8 below it: 1.7e-4 of 1 - b2. Roundings of half a unit, as a random walk
    # over 5000 steps that v remembers, make 4e-6 above 1.
    g = (1 + 0.1 * np.random.default_rng(0).standard_normal((30000, 8))).astype(np.float32)
    exact = np.ones(8)
    for row in g.astype(np.float64):
        exact = 0.9999 * exact + 0.0001 * row * row
    tx = adamx.optimizers.scale_by_adopt(precise=precise)
    state = adamx.MomentsState(jnp.int32(1), jnp.zeros(8), jnp.ones(8))
    loop = jax.jit(lambda s, g: jax.lax.scan(lambda s, row: (tx.update(row, s)[1], None), s, g)[0])
    assert low <= float(np.abs(loop(state, g).nu / exact - 1).max()) < high


def test_decay_goes_before_the_rate():
    tx = optax.chain(adamx.optimizers.scale_by_adopt(), adamx.add_decayed_weights(0.5), adamx.scale_by_lr(0.1))
    params = jnp.ones(2)
    np.testing.assert_allclose(tx.update(params, tx.init(params), params)[0], -0.05)


def test_a_nan_or_infinite_gradient_shows(run):
    for wrong in (jnp.nan, jnp.inf):
        updates, _ = run(adamx.adopt(1.0), jnp.asarray([[1.0, 1.0], [wrong, 1.0], [1.0, 1.0]]), jnp.zeros(2))
        assert np.isnan(updates[1:, 0]).all()
        assert np.isfinite(updates[:, 1]).all()


def test_errors():
    with pytest.raises(ValueError, match="eps must be a finite number of at least 0, got -1"):
        adamx.adopt(0.1, eps=-1)
    with pytest.raises(TypeError, match="clip_value_fn schedule <lambda> must take the step count"):
        adamx.adopt(0.1, clip_value_fn=lambda: 1.0).init(jnp.ones(1))
    tx = adamx.adopt(0.1, b2=0.99999999)
    with pytest.raises(ValueError, match=r"b2=0\.99999999 is 1 in float32"):
        tx.update(jnp.ones(1), tx.init(jnp.ones(1)))
    with pytest.raises(TypeError, match="expected the state that init returned, MomentsState"):
        adamx.optimizers.scale_by_adopt().update(jnp.ones(1), optax.EmptyState())
