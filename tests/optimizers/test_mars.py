import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.testing import compare

ULP = 2.0**-23


def oracle(theta, gradients, eta, beta1=0.95, beta2=0.99, eps=1e-8, gamma=0.025, limit=1.0, lam=0.0):
    """MARS-AdamW of arXiv 2411.10438, approximate, in float64: one leaf, its gradient before the first its own."""
    m, v, path = np.zeros_like(theta), np.zeros_like(theta), []
    before = gradients[0]
    for t, g in enumerate(gradients, start=1):
        c = g + gamma * beta1 / (1 - beta1) * (g - before)
        norm = np.linalg.norm(c)
        c = c * limit / norm if norm > limit else c
        m = beta1 * m + (1 - beta1) * c
        v = beta2 * v + (1 - beta2) * c * c
        theta = theta - eta * (m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps) + lam * theta)
        before = g
        path.append(theta)
    return np.stack(path)


SETTINGS = {
    "default": ({"weight_decay": 0.0}, {}),
    "decay": ({"weight_decay": 0.1}, {"lam": 0.1}),
    "no clip": ({"weight_decay": 0.0, "max_norm": None}, {"limit": np.inf}),
    "other rates": (
        {"weight_decay": 0.0, "b1": 0.9, "b2": 0.999, "gamma": 0.1, "max_norm": 10.0},
        {"beta1": 0.9, "beta2": 0.999, "gamma": 0.1, "limit": 10.0},
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_float64_is_the_paper(name, x64, noise, run):
    arguments, letters = SETTINGS[name]
    g, theta = noise(0), np.linspace(-1, 1, 24)
    _, path = run(adamx.mars(0.01, **arguments), jnp.asarray(g), jnp.asarray(theta))
    np.testing.assert_allclose(path, oracle(theta, g, 0.01, **letters), rtol=0, atol=1e-12)


def test_float32_is_the_paper(noise, run):
    # 1 - b2**t is off by up to 2^-24 / (1 - b2) of itself, of which the root takes half; the norm of 24 squares by 12
    # units at worst. c is a difference of terms of 1.5 g, rounded four times, and m of terms of at most 4 √v.
    g = noise(1)
    updates, _ = run(adamx.mars(1.0, weight_decay=0.0), jnp.asarray(g, jnp.float32), jnp.zeros(24))
    exact = np.diff(oracle(np.zeros(24), g, 1.0), axis=0, prepend=0.0)
    np.testing.assert_allclose(updates, exact, rtol=2.0**-24 / 0.01 + 12 * ULP, atol=24 * ULP)


@pytest.mark.slow
def test_without_its_correction_and_clip_it_is_adamw_to_the_bit(draw, stream):
    ours, adamw = adamx.mars(1e-3, gamma=0.0, max_norm=None), adamx.adamw(1e-3, 0.95, 0.99)
    report = compare(ours, adamw, draw(0), stream(50))
    assert {leaf.part for leaf in report.leaves} >= {"update", "params"}
    assert report.max_ulps == 0


def test_a_constant_gradient_has_nothing_to_correct(run):
    c, _ = run(adamx.optimizers.reduce_variance(gamma=0.5), jnp.full((4, 3), 0.1), jnp.zeros(3))
    np.testing.assert_array_equal(c, jnp.float32(0.1))


def test_the_correction_is_the_change_times_gamma_and_the_length_of_the_average():
    tx = adamx.optimizers.reduce_variance(b1=0.9, gamma=0.1, max_norm=None)
    first, state = tx.update(jnp.asarray([4.0]), tx.init(jnp.zeros(1)))
    second, state = tx.update(jnp.asarray([5.0]), state)
    np.testing.assert_array_equal(first, 4.0)
    np.testing.assert_allclose(second, 5 + 0.1 * 9 * 1, rtol=ULP)
    np.testing.assert_array_equal(state.gradient, 5.0)
    assert state.count == 2


@pytest.mark.slow
@pytest.mark.parametrize("gamma", [0.025, 0.0])
@pytest.mark.parametrize("size", [1e-3, 3.0, float(np.finfo(np.float32).max)])
def test_the_norm_of_a_leaf_is_at_most_1(size, gamma):
    tx, g = adamx.optimizers.reduce_variance(gamma=gamma), {"a": jnp.full((30, 30), size), "b": jnp.full(4, -size)}
    state = tx.init(g)
    for sign in (1, -1, 1):  # from one largest number to the other: the change overflows
        c, state = jax.jit(tx.update)(jax.tree.map(lambda x: sign * x, g), state)
        for name, expected in g.items():
            norm = float(np.linalg.norm(np.asarray(c[name], np.float64)))
            assert norm <= 1 + 4 * ULP
            assert norm > 0.9 or size < 1
            assert (jnp.sign(c[name]) == sign * jnp.sign(expected)).all()


@pytest.mark.slow
@pytest.mark.parametrize("gamma", [0.025, 0.0])
def test_the_norm_of_a_complex_leaf_whose_magnitudes_overflow(gamma):
    tx, g = adamx.optimizers.reduce_variance(gamma=gamma), jnp.asarray([3e38 + 3e38j, 3e38 - 3e38j])
    c, _ = tx.update(g, tx.init(g))
    np.testing.assert_allclose(c, [0.5 + 0.5j, 0.5 - 0.5j], rtol=4 * ULP)


@pytest.mark.slow
def test_a_gradient_that_float32_does_not_hold_is_kept_as_the_largest(x64):
    tx, params = adamx.optimizers.reduce_variance(), jnp.zeros(1, jnp.float32)
    c, state = tx.update(jnp.asarray([1e300]), tx.init(params))
    np.testing.assert_array_equal(c, 1.0)
    np.testing.assert_array_equal(state.gradient, np.finfo(np.float32).max)


@pytest.mark.slow
def test_half_precision_is_not_rounded_on_the_way(run):
    # In float16 the smaller elements of a leaf of norm 1 would be 0, 6e-8 being the least.
    g = jnp.full((3, 2), 1e-4, jnp.float16).at[:, 0].set(6e4)
    c, _ = adamx.optimizers.reduce_variance().update(g[0], adamx.optimizers.reduce_variance().init(g[0]))
    assert c.dtype == jnp.float32
    np.testing.assert_allclose(c[1], np.float16(1e-4) / np.float16(6e4).astype(np.float32), rtol=4 * ULP)
    updates, _ = run(adamx.mars(1.0, eps=0.0, weight_decay=0.0), g, jnp.zeros(2, jnp.float16))
    assert updates.dtype == jnp.float16
    np.testing.assert_allclose(updates, -1, rtol=1e-3)


def test_by_hand_before_other_stages(run):
    stages = (
        adamx.optimizers.reduce_variance(),
        adamx.scale_by_moments(0.95, 0.99),
        adamx.optimizers.cautious(),
        adamx.bias_correction(),
    )
    tx = optax.chain(optax.clip_by_global_norm(1.0), *stages, adamx.scale_by_lr(1.0))
    assert (run(tx, jnp.ones((3, 2)), jnp.ones(2))[0] < 0).all()


@pytest.mark.slow
def test_vectors_may_be_left_to_adamw():
    params = {"kernel": jnp.full((2, 2), 0.1), "bias": jnp.full(2, 0.1)}
    matrices = optax.masked(adamx.optimizers.reduce_variance(), lambda p: jax.tree.map(lambda x: x.ndim > 1, p))
    tx = optax.chain(matrices, adamx.adamw(0.1, 0.95, 0.99))
    _, state = tx.update(params, tx.init(params), params)
    assert len(jax.tree.leaves(state[0])) == 2  # the count and one gradient


@pytest.mark.slow
def test_a_nan_or_infinite_gradient_shows(run):
    for wrong in (jnp.nan, jnp.inf):
        for gamma in (0.025, 0.0):
            g = jnp.asarray([[1.0, 1.0], [wrong, 1.0], [1.0, 1.0]])
            updates, _ = run(adamx.mars(1.0, gamma=gamma), g, jnp.zeros(2))
            assert np.isnan(updates[1:, 0]).all()


def test_the_derivative_in_a_leaf_of_zeros_is_finite():
    tx, zeros = adamx.mars(1.0), jnp.zeros(3)
    slope = jax.jit(jax.jacobian(lambda g: tx.update(g, tx.init(zeros), zeros)[0]))(zeros)
    assert np.isfinite(slope).all()
    assert (jnp.diag(slope) < 0).all()


def test_errors():
    with pytest.raises(ValueError, match="gamma must be a finite number of at least 0, got -1"):
        adamx.optimizers.reduce_variance(gamma=-1)
    with pytest.raises(ValueError, match="max_norm must be a finite number of at least 0, got nan"):
        adamx.mars(0.1, max_norm=float("nan"))
    with pytest.raises(ValueError, match=r"b1 must be in \[0, 1\), got 1"):
        adamx.optimizers.reduce_variance(b1=1)
    tx = adamx.optimizers.reduce_variance()
    with pytest.raises(TypeError, match="expected the state that init returned, PreviousGradientState, got EmptyState"):
        tx.update(jnp.ones(1), optax.EmptyState())
    with pytest.raises(
        ValueError, match=r"gradient at w has shape \(3,\), the state was made for a parameter of shape \(2,\)"
    ):
        tx.update({"w": jnp.ones(3)}, tx.init({"w": jnp.ones(2)}))
    behind = optax.chain(adamx.scale_by_moments(), tx)
    with pytest.raises(TypeError, match="Moments is the message"):
        behind.update(jnp.ones(1), behind.init(jnp.ones(1)))
