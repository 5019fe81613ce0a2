import collections

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx

INT8 = adamx.storage.Int8(block_size=32, min_size=0)
CLIPPED = adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adamw(0.01))
OPTIMIZERS = {
    "adamw": (adamx.adamw(optax.cosine_decay_schedule(0.01, 500), weight_decay=0.1), "float32"),
    "clipped": (CLIPPED, "float32"),
    "int8": (adamx.adam(0.01, mu_dtype=INT8, nu_dtype=INT8), "float32"),
    "master weights": (adamx.with_master_weights(adamx.adam(0.01)), "bfloat16"),
    "guard": (adamx.skip_nonfinite(adamx.adam(0.01)), "float32"),
    "optax": (optax.adam(0.01), "float32"),
}
SHAPES = {"kernel": (8, 64), "bias": (64,), "scale": ()}
STEPS, BAD = 125, (70, 71, 119)  # a window of 128 is half full after 64


def tree(seed, dtype="float32", **shape):
    random = np.random.default_rng(seed)
    return {k: jnp.asarray(random.standard_normal((*shape.values(), *s)), dtype) for k, s in SHAPES.items()}


def jitted(tx, through="step"):
    def by_update(params, state, gradients, **extra):
        updates, state = tx.update(gradients, state, params, **extra)
        return optax.apply_updates(params, updates), state

    def by_step(params, state, gradients, **extra):
        return adamx.step(tx, gradients, state, params, **extra)

    return jax.jit(by_step if through == "step" else by_update)


def run(tx, gradients, through="step"):
    """Parameters and state after all gradients, and the steps that were skipped."""
    params, step = tree(0, gradients["bias"].dtype), jitted(tx, through)

    def body(carry, g):
        after = step(*carry, g)
        return after, after[1].skipped > carry[1].skipped

    start = params, tx.init(params)
    (params, state), skipped = jax.jit(lambda start, g: jax.lax.scan(body, start, g))(start, gradients)
    return params, state, np.flatnonzero(skipped).tolist()


def assert_equal(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.slow
@pytest.mark.parametrize("through", ["step", "update"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_planted_batches_alone_are_skipped_and_leave_no_trace(name, through):
    inner, dtype = OPTIMIZERS[name]
    tx, good = adamx.skip_spikes(inner), [t for t in range(STEPS) if t not in BAD]
    clean = tree(1, dtype, steps=STEPS)
    sizes = jnp.asarray([1000 if t in BAD else 1 for t in range(STEPS)], dtype)
    planted = {k: g * sizes.reshape(-1, *(1,) * (g.ndim - 1)) for k, g in clean.items()}
    params, state, skipped = run(tx, planted, through)
    expected, reference, none = run(tx, {k: g[jnp.asarray(good)] for k, g in clean.items()}, through)
    assert (skipped, none) == (list(BAD), [])
    assert_equal(params, expected)
    assert_equal(state.inner, reference.inner)


def reference(numbers, threshold, window):
    """The rule in float64: what is skipped of a stream of numbers; `None` is no number."""
    held, skipped = collections.deque(maxlen=window), []
    for x in numbers:
        far = len(held) >= max(2, window // 2) and x - np.mean(held) > threshold * np.std(held, ddof=1)
        skipped.append(bool(far) or not np.isfinite(x))
        held.extend([x] if np.isfinite(x) else [])
    return np.array(skipped)


def judged(norms, losses=None, **arguments):
    """Whether each step is skipped, by the norm of a gradient of one element and by the loss."""
    tx = adamx.skip_spikes(optax.sgd(0.0), **arguments)

    def step(state, given):
        g, loss = given
        after = tx.update(g, state, value=loss)[1]
        return after, after.skipped > state.skipped

    given = jnp.asarray(norms, jnp.float32), None if losses is None else jnp.asarray(losses, jnp.float32)
    state, skipped = jax.jit(lambda: jax.lax.scan(step, tx.init(jnp.zeros([])), given))()
    return np.asarray(skipped), state


@pytest.mark.parametrize("window", [2, 3, 8, 50])
def test_the_rule_is_that_of_float64(window):
    random = np.random.default_rng(window)
    norms = random.lognormal(0, 1, 300)
    losses = random.standard_normal(300) * 0.1 + np.linspace(3, -1, 300)
    norms[random.integers(0, 300, 9)] = np.inf
    losses[random.integers(0, 300, 9)] = np.nan
    got, state = judged(norms, losses, threshold=2.5, window=window)
    expected = reference(norms, 2.5, window) | reference(losses, 2.5, window)
    np.testing.assert_array_equal(got, expected)
    assert 20 < got.sum() < 200
    assert int(state.count) == int(state.loss_count) == window
    np.testing.assert_allclose(state.norms, norms[np.isfinite(norms)][-window:], rtol=1e-6)
    np.testing.assert_allclose(state.losses, losses[np.isfinite(losses)][-window:], rtol=1e-6)


@pytest.mark.parametrize(("steps", "skips"), [(3, False), (4, True)])
def test_nothing_is_skipped_before_the_window_is_half_full(steps, skips):
    got, _ = judged([*np.linspace(1, 1.1, steps), 1000.0], window=8)
    assert got.tolist() == [False] * steps + [skips]


def test_a_new_level_becomes_the_rule():
    got, _ = judged([*np.linspace(0.9, 1.1, 128), *[10.0] * 140, 11.0, *[10.0] * 5])
    assert np.flatnonzero(got).tolist() == [128, 129, 130, 131, 268]


@pytest.mark.slow
def test_what_is_not_finite_is_never_taken_and_never_enters():
    bad = [np.nan, np.inf]
    got, state = judged([*bad, 1.0, 1.1, *bad, 1.05], window=4)
    assert got.tolist() == [True, True, False, False, True, True, False]
    np.testing.assert_allclose(state.norms[1:], [1.0, 1.1, 1.05])
    huge = jnp.full(16, 3e38)  # finite, its norm is not
    tx = adamx.skip_spikes(optax.sgd(1.0))
    assert int(tx.update(huge, tx.init(huge))[1].skipped) == 1


@pytest.mark.parametrize("unit", [2.0**-55, 2.0**110])
def test_the_unit_does_not_matter(unit):
    norms = np.random.default_rng(0).lognormal(0, 1, 100)
    expected, _ = judged(norms, threshold=2.0, window=10)
    got, _ = judged(norms * unit, threshold=2.0, window=10)
    np.testing.assert_array_equal(got, expected)
    assert expected.any()


def test_rounding_is_no_spike():
    norms = np.float32(1.1) + np.float32(2.0**-23) * (np.arange(40) % 40 == 30)
    assert not judged(norms, window=8)[0].any()
    assert judged(np.full(40, 1.1) + 2e-5 * (np.arange(40) == 30), window=8)[0].sum() == 1


@pytest.mark.slow
def test_a_loss_counts_where_it_is_given():
    tx, g = adamx.skip_spikes(adamx.adam(0.1), window=4), jnp.ones(2)
    state, step = tx.init(g), jitted(tx)
    for loss in (2.0, 2.1, 1.9):
        _, state = step(g, state, g, value=loss)
    _, state = step(g, state, g)
    assert (int(state.count), int(state.loss_count), int(state.skipped)) == (4, 3, 0)
    _, low = step(g, state, g, value=jnp.bfloat16(-100))
    _, high = step(g, state, g, value=jnp.float16(100))
    assert (int(low.skipped), int(high.skipped)) == (0, 1)
    assert int(high.inner[0].count) == 4


def test_the_loss_goes_on_to_what_is_inside():
    seen = []

    def update(updates, state, params=None, *, value=None, **extra):
        seen.append(value)
        return updates, state

    tx = adamx.skip_spikes(optax.GradientTransformationExtraArgs(lambda params: (), update))
    tx.update(jnp.ones(2), tx.init(jnp.ones(2)), value=0.5)
    assert set(seen) == {0.5}


@pytest.mark.parametrize("through", ["step", "update"])
def test_the_norm_behind_a_clip_is_that_of_clipped_gradients(through):
    tx, params = adamx.chain(adamx.clip_by_global_norm(1.0), adamx.skip_spikes(adamx.adamw(0.1))), tree(0)
    _, state = jitted(tx, through)(params, tx.init(params), tree(1))
    np.testing.assert_allclose(state[1].norms[-1], 1.0, rtol=1e-6)


@pytest.mark.slow
def test_scans_and_maps_and_keeps_types():
    tx = adamx.skip_spikes(adamx.with_stochastic_rounding(adamx.adamw(0.1, mu_dtype="bfloat16")), window=4)
    params = {"w": jnp.ones((4, 3), jnp.bfloat16), "none": None, "b": jnp.ones(4)}
    sizes = jnp.array([1, 1.1, 1000, 1])

    def step(carry, size):
        g = jax.tree.map(lambda p: p * size.astype(p.dtype), params)
        return adamx.step(tx, g, carry[1], carry[0], value=size), None

    with jax.numpy_dtype_promotion("strict"):
        start = params, tx.init(params)
        after = jax.jit(lambda start: jax.lax.scan(step, start, sizes)[0], donate_argnums=0)(start)
    assert int(after[1].skipped) == 1
    adamx.interop.check_restored(tx, after[1], after[0])
    several = jax.vmap(tx.init)(jnp.ones((2, 3)))
    for size in (jnp.ones(2), jnp.array([1.1, 0.9]), jnp.array([1.0, 100.0])):
        _, several = jax.vmap(tx.update)(size[:, None] * jnp.ones(3), several, jnp.ones((2, 3)))
    np.testing.assert_array_equal(several.skipped, [0, 1])


@pytest.mark.slow
def test_wide_gradients(x64):
    tx = adamx.skip_spikes(adamx.adamw(0.1), window=2)
    params = {"w": jnp.ones(3, jnp.float64), "b": jnp.ones(3, jnp.float32)}
    state, step = tx.init(params), jitted(tx)
    with jax.numpy_dtype_promotion("strict"):
        for size, skipped in ((1.0, 0), (1.1, 0), (1e250, 1), (1.0, 1)):
            g = {"w": params["w"] * size, "b": params["b"]}
            params, state = step(params, state, g, value=jnp.float64(1))
            assert int(state.skipped) == skipped
    assert state.norms.dtype == state.losses.dtype == jnp.float32


def test_bytes_of_a_window_are_of_no_leaf():
    tx, params = adamx.skip_spikes(adamx.adam(0.1)), jnp.ones(128)
    assert adamx.state_bytes(tx.init(params)).rest == 2 * 4 * 128 + 4 * 4


def test_errors():
    tx, params = adamx.skip_spikes(adamx.adam(0.1)), jnp.ones(2)
    state = tx.init(params)
    with pytest.raises(ValueError, match="threshold must be a finite number of at least 0, got -1"):
        adamx.skip_spikes(adamx.adam(0.1), -1.0)
    with pytest.raises(ValueError, match="window must be at least 2, got 1"):
        adamx.skip_spikes(adamx.adam(0.1), window=1)
    with pytest.raises(TypeError, match=r"skip_spikes\(\) has no argument 'sigma'.*it takes tx, threshold, window"):
        adamx.skip_spikes(adamx.adam(0.1), sigma=6)
    with pytest.raises(ValueError, match=r"value must be a scalar, got an array of shape \(2,\).*value=loss"):
        tx.update(params, state, value=params)
    with pytest.raises(TypeError, match=r"value must be a real number, got 'low'.*value=loss"):
        adamx.step(tx, params, state, params, value="low")
    with pytest.raises(ValueError, match="has a window of 4 steps, the state one of 128"):
        adamx.skip_spikes(adamx.adam(0.1), window=4).update(params, state)
    with pytest.raises(TypeError, match="expected the state that init returned, SkipSpikesState, got tuple"):
        tx.update(params, state.inner)
    with pytest.raises(TypeError, match="gradient at w must be an array of real or complex floating numbers"):
        tx.update({"w": jnp.ones(2, int)}, tx.init({"w": params}))
