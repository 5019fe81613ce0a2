import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from tests.backends import stepped

FAULTS = (np.nan, np.inf, -np.inf)
HUGE = (1e20, 3e38, -3e38)
CODED = adamx.storage.Int8(block_size=32, min_size=0)
OPTIMIZERS = {
    "adam": lambda: adamx.adam(0.01),
    "adamw": lambda: adamx.adamw(optax.cosine_decay_schedule(0.01, 50), weight_decay=0.1),
    "fused": lambda: adamx.adam(0.01),
    "int8": lambda: adamx.adam(0.01, mu_dtype=CODED, nu_dtype=CODED),
    "master weights": lambda: adamx.with_master_weights(adamx.adam(0.01)),
    "optax.adam": lambda: optax.adam(0.01),
}
SHAPES = {"kernel": (8, 64), "bias": (64,), "scale": ()}


def tree(seed):
    random = np.random.default_rng(seed)
    return {k: np.asarray(random.standard_normal(shape), np.float32) for k, shape in SHAPES.items()}


def storm(steps, seed=0):
    """(gradients, the names of the leaves that are faulty) of every step; every third step has huge numbers."""
    random = np.random.default_rng(seed)
    for t in range(steps):
        gradients, faulty = tree(t + 1), set()
        for name, g in gradients.items():
            flat = g.reshape(-1)
            if t % 3 == 0:
                flat[random.integers(flat.size)] = random.choice(HUGE)
            if random.random() < 0.25:
                flat[random.integers(flat.size)] = random.choice(FAULTS)
                faulty.add(name)
        yield gradients, faulty


jitted = functools.cache(stepped)


def run(tx, stream, through="step"):
    params = jax.tree.map(jnp.asarray, tree(0))
    state, take = tx.init(params), jitted(tx, through)
    for gradients in stream:
        params, state = take(params, state, gradients)
    return params, state


def assert_equal(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.slow
@pytest.mark.parametrize("through", ["step", "update"])
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_a_storm_ends_where_the_stream_without_its_faulty_steps_does(make, through):
    tx, steps = make(), list(storm(40))
    guarded, clean = adamx.skip_nonfinite(tx), [g for g, faulty in steps if not faulty]
    params, state = run(guarded, [g for g, _ in steps], through)
    expected, reference = run(tx, clean, through)
    assert_equal(state.inner, reference)
    if through == "update":  # which rounds an update before it is added; without a branch the compiler contracts
        expected, _ = run(guarded, clean, through)
    assert_equal(params, expected)
    assert int(state.skipped) == sum(bool(faulty) for _, faulty in steps) > 10


@pytest.mark.slow
def test_counts():
    tx = adamx.skip_nonfinite(adamx.adam(0.1), max_consecutive=2)
    state = tx.init({"x": jnp.ones(2)})
    seen = []
    for g in (1.0, jnp.nan, jnp.inf, 1.0, jnp.nan):
        _, state = tx.update({"x": jnp.full(2, g)}, state)
        seen.append((int(state.skipped), int(state.in_a_row)))
    assert seen == [(0, 0), (1, 1), (2, 2), (2, 0), (3, 1)]
    adamx.check_skips(state)
    for _ in range(2):
        _, state = tx.update({"x": jnp.full(2, jnp.nan)}, state)
    _, state = tx.update({"x": jnp.ones(2)}, state)
    with pytest.raises(FloatingPointError, match=r"more than max_consecutive steps in a row .* of all: 5$"):
        adamx.check_skips(optax.MaskedState(inner_state=state))


def test_a_fresh_state_may_be_donated():
    tx = adamx.skip_nonfinite(adamx.adam(0.1))
    params = {"a": jnp.ones(3), "b": jnp.ones(3)}
    step = jax.jit(lambda params, state, g: adamx.step(tx, g, state, params), donate_argnums=(0, 1))
    params, state = step(params, tx.init(params), {"a": jnp.ones(3), "b": jnp.full(3, jnp.nan)})
    assert int(state.skipped) == 1


@pytest.mark.slow
def test_never_lets_one_through():
    tx = adamx.skip_nonfinite(adamx.adam(0.1), max_consecutive=0)
    params = jnp.ones(2)
    state = tx.init(params)
    for _ in range(20):
        params, state = adamx.step(tx, jnp.array([jnp.nan, 1.0]), state, params)
    np.testing.assert_array_equal(params, 1)


def test_errors():
    for call in ({"scope": "leaf"}, {"scope": "step"}):
        with pytest.raises(TypeError, match=r"has no argument scope any more.* optax\.partition"):
            adamx.skip_nonfinite(adamx.adam(0.1), **call)
    with pytest.raises(TypeError, match="has no argument scope any more"):
        adamx.skip_nonfinite(adamx.adam(0.1), "leaf")
    with pytest.raises(TypeError, match=r"skip_nonfinite\(\) has no argument 'limit'"):
        adamx.skip_nonfinite(adamx.adam(0.1), limit=3)
    with pytest.raises(TypeError, match="max_consecutive must be an integer"):
        adamx.skip_nonfinite(adamx.adam(0.1), max_consecutive=1.5)
    with pytest.raises(ValueError, match="max_consecutive must be at least 0"):
        adamx.skip_nonfinite(adamx.adam(0.1), max_consecutive=-1)
    with pytest.raises(TypeError, match="expected the state that init returned, SkipNonfiniteState, got tuple"):
        adamx.skip_nonfinite(adamx.adam(0.1)).update(jnp.ones(1), adamx.adam(0.1).init(jnp.ones(1)))
    with pytest.raises(TypeError, match="no SkipNonfiniteState"):
        adamx.check_skips(adamx.adam(0.1).init(jnp.ones(1)))


@pytest.mark.slow
def test_scans_without_recompiling_and_under_vmap():
    tx = adamx.skip_nonfinite(adamx.adamw(0.1, mu_dtype="bfloat16", nu_dtype="bfloat16"))
    params = {"w": jnp.ones((4, 3), jnp.bfloat16), "b": jnp.ones(3), "none": None}
    gradients = {"w": jnp.ones((5, 4, 3), jnp.bfloat16), "b": jnp.ones((5, 3)).at[2].set(jnp.nan), "none": None}

    def step(carry, g):
        return adamx.step(tx, g, carry[1], carry[0])[::1], None

    (after, state), _ = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), gradients))(params)
    assert int(state.skipped) == 1
    assert jax.tree.map(jnp.result_type, after) == jax.tree.map(jnp.result_type, params)
    several = jax.vmap(tx.init)({k: None if v is None else jnp.stack([v, v]) for k, v in params.items()})
    two = jax.tree.map(lambda g: g[1:3], gradients)
    _, swept = jax.vmap(tx.update)(two, several, jax.tree.map(lambda p: jnp.stack([p, p]), params))
    np.testing.assert_array_equal(swept.skipped, [0, 1])


@pytest.mark.slow
@pytest.mark.skipif(
    jax.__version_info__ < (0, 7), reason="XLA of jax 0.6 writes magnitudes to memory to find the largest"
)
def test_copies_at_most_a_third_of_the_parameters():
    params = {str(i): jnp.ones((256, 256)) for i in range(4)}
    size = 4 * 4 * 256 * 256

    def temporary(take, tx):
        compiled = jax.jit(take, donate_argnums=(0, 1)).lower(params, tx.init(params), params).compile()
        return compiled.memory_analysis().temp_size_in_bytes / size

    def by_update(tx):
        def take(params, state, gradients):
            updates, state = tx.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        return temporary(take, tx)

    for inner in (adamx.adam(0.1), adamx.adam(0.1)):
        bare = temporary(lambda p, s, g, tx=inner: adamx.step(tx, g, s, p), inner)
        tx = adamx.skip_nonfinite(inner)
        assert temporary(lambda p, s, g, tx=tx: adamx.step(tx, g, s, p), tx) <= bare + 0.3
    assert by_update(adamx.skip_nonfinite(adamx.adam(0.1))) <= by_update(optax.apply_if_finite(adamx.adam(0.1), 3))


@pytest.mark.parametrize("wrong", [jnp.ones(2, int), jnp.ones(2, bool), "relu"], ids=["integer", "boolean", "string"])
def test_what_is_no_number_is_judged_by_the_optimizer(wrong):
    tx, params = adamx.skip_nonfinite(adamx.adam(0.1)), {"layer": {"w": jnp.ones(2)}}
    with pytest.raises(TypeError, match="gradient at layer/w must be an array of real or complex floating numbers"):
        tx.update({"layer": {"w": wrong}}, tx.init(params), params)


def test_integer_leaves_that_the_optimizer_leaves_out_are_finite():
    params = {"w": jnp.ones(2), "n": jnp.ones(2, int)}
    tx = adamx.skip_nonfinite(optax.masked(adamx.adam(0.1), {"w": True, "n": False}))
    state = tx.init(params)
    for w, skipped in ((1.0, 0), (jnp.nan, 1)):
        _, state = jax.jit(tx.update)({"w": jnp.full(2, w), "n": params["n"]}, state, params)
        assert int(state.skipped) == skipped


def test_state_of_other_types_than_the_update_gives():
    # optax keeps m in the parameters' dtype until the first float32 gradient.
    tx = adamx.skip_nonfinite(optax.adam(0.1))
    params = jnp.ones(2, jnp.bfloat16)
    updates, state = tx.update(jnp.ones(2), tx.init(params), params)
    assert updates.dtype == jnp.float32
    assert state.inner[0].mu.dtype == jnp.float32
