import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx

FAULTS = (np.nan, np.inf, -np.inf)
HUGE = (1e20, 3e38, -3e38)
CODED = adamx.storage.Int8(block_size=32, min_size=0)
OPTIMIZERS = {
    "adam": lambda: adamx.adam(0.01),
    "adamw": lambda: adamx.adamw(optax.cosine_decay_schedule(0.01, 50), weight_decay=0.1),
    "fused": lambda: adamx.fused_adam(0.01),
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


@functools.cache
def jitted(tx, through):
    def by_update(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    def by_step(params, state, gradients):
        return adamx.step(tx, gradients, state, params)

    return jax.jit(by_step if through == "step" else by_update)


def run(tx, stream, through="step"):
    params = jax.tree.map(jnp.asarray, tree(0))
    state, take = tx.init(params), jitted(tx, through)
    for gradients in stream:
        params, state = take(params, state, gradients)
    return params, state


def assert_equal(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


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


@pytest.mark.parametrize("through", ["step", "update"])
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_clean_leaves_move_as_in_a_run_without_faults(make, through):
    tx, steps = adamx.skip_nonfinite(make(), "leaf"), list(storm(12))
    steps = [(g, faulty - {"kernel"}) for g, faulty in steps if "kernel" not in faulty]
    params, state = run(tx, [g for g, _ in steps], through)
    clean = [{k: np.zeros_like(x) if k in faulty else x for k, x in g.items()} for g, faulty in steps]
    other, reference = run(tx, clean, through)
    np.testing.assert_array_equal(params["kernel"], other["kernel"])
    assert {k: int(n) for k, n in state.skipped.items()} == {k: sum(k in f for _, f in steps) for k in SHAPES}
    moments, expected = (
        next(x for x in jax.tree.leaves(s, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(x, "mu"))
        for s in (state, reference)
    )
    assert_equal((moments.count, moments.mu["kernel"]), (expected.count, expected.mu["kernel"]))


def test_a_faulty_leaf_keeps_its_parameter_and_moments():
    tx = adamx.skip_nonfinite(adamx.adam(0.1), "leaf")
    params = {"a": jnp.ones(3), "b": jnp.ones(3)}
    params, state = adamx.step(tx, params, tx.init(params), params)
    faulty = {"a": jnp.ones(3), "b": jnp.array([1.0, jnp.nan, 1.0])}
    after, new = adamx.step(tx, faulty, state, params)
    assert_equal((after["b"], new.inner[0].mu["b"]), (params["b"], state.inner[0].mu["b"]))
    assert (after["a"] < params["a"]).all()
    assert int(new.inner[0].count) == 2
    nothing, last = adamx.step(tx, jax.tree.map(lambda x: x * jnp.inf, faulty), new, after)
    assert_equal((nothing, last.inner), (after, new.inner))


def test_leaf_by_leaf_is_the_whole_to_a_few_ulp():
    tx, stream = adamx.adamw(0.01), [tree(t) for t in range(1, 21)]
    a, _ = run(tx, stream)
    b, _ = run(adamx.skip_nonfinite(tx, "leaf"), stream)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        # A step of 0.01 is computed to a few units, a sum of it and the parameter rounds to half of one.
        np.testing.assert_allclose(x, y, rtol=0, atol=len(stream) * 2.0**-24 * float(np.abs(x).max()))


@pytest.mark.parametrize("scope", ["step", "leaf"])
def test_counts(scope):
    tx = adamx.skip_nonfinite(adamx.adam(0.1), scope, max_consecutive=2)
    state = tx.init({"x": jnp.ones(2)})
    seen = []
    for g in (1.0, jnp.nan, jnp.inf, 1.0, jnp.nan):
        _, state = tx.update({"x": jnp.full(2, g)}, state)
        seen.append((int(*jax.tree.leaves(state.skipped)), int(*jax.tree.leaves(state.in_a_row))))
    assert seen == [(0, 0), (1, 1), (2, 2), (2, 0), (3, 1)]
    adamx.check_skips(state)
    for _ in range(2):
        _, state = tx.update({"x": jnp.full(2, jnp.nan)}, state)
    _, state = tx.update({"x": jnp.ones(2)}, state)
    place = " at x" if scope == "leaf" else ""
    with pytest.raises(FloatingPointError, match=f"more than max_consecutive steps in a row .* of all: 5{place}$"):
        adamx.check_skips(optax.MaskedState(inner_state=state))


@pytest.mark.parametrize("scope", ["step", "leaf"])
def test_a_fresh_state_may_be_donated(scope):
    tx = adamx.skip_nonfinite(adamx.adam(0.1), scope)
    params = {"a": jnp.ones(3), "b": jnp.ones(3)}
    step = jax.jit(lambda params, state, g: adamx.step(tx, g, state, params), donate_argnums=(0, 1))
    params, state = step(params, tx.init(params), {"a": jnp.ones(3), "b": jnp.full(3, jnp.nan)})
    assert sum(int(n) for n in jax.tree.leaves(state.skipped)) == 1


def test_never_lets_one_through():
    tx = adamx.skip_nonfinite(adamx.adam(0.1), max_consecutive=0)
    params = jnp.ones(2)
    state = tx.init(params)
    for _ in range(20):
        params, state = adamx.step(tx, jnp.array([jnp.nan, 1.0]), state, params)
    np.testing.assert_array_equal(params, 1)


def test_errors():
    with pytest.raises(ValueError, match='scope must be "step" or "leaf", got \'tree\''):
        adamx.skip_nonfinite(adamx.adam(0.1), "tree")
    with pytest.raises(TypeError, match="max_consecutive must be an integer"):
        adamx.skip_nonfinite(adamx.adam(0.1), max_consecutive=1.5)
    with pytest.raises(ValueError, match="max_consecutive must be at least 0"):
        adamx.skip_nonfinite(adamx.adam(0.1), max_consecutive=-1)
    with pytest.raises(TypeError, match="expected the state that init returned, SkipNonfiniteState, got tuple"):
        adamx.skip_nonfinite(adamx.adam(0.1)).update(jnp.ones(1), adamx.adam(0.1).init(jnp.ones(1)))
    with pytest.raises(TypeError, match="no SkipNonfiniteState"):
        adamx.check_skips(adamx.adam(0.1).init(jnp.ones(1)))


def test_what_looks_across_leaves_is_refused_leaf_by_leaf():
    tx = adamx.skip_nonfinite(optax.chain(optax.clip_by_global_norm(1.0), adamx.adam(0.1)), "leaf")
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    with pytest.raises(
        TypeError, match='steps leaf by leaf, but the update of a depends on the gradient of b: use scope="step"'
    ):
        tx.update(params, tx.init(params))


@pytest.mark.parametrize("scope", ["step", "leaf"])
def test_scans_without_recompiling_and_under_vmap(scope):
    tx = adamx.skip_nonfinite(adamx.adamw(0.1, mu_dtype="bfloat16", nu_dtype="bfloat16"), scope)
    params = {"w": jnp.ones((4, 3), jnp.bfloat16), "b": jnp.ones(3), "none": None}
    gradients = {"w": jnp.ones((5, 4, 3), jnp.bfloat16), "b": jnp.ones((5, 3)).at[2].set(jnp.nan), "none": None}

    def step(carry, g):
        return adamx.step(tx, g, carry[1], carry[0])[::1], None

    (after, state), _ = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), gradients))(params)
    counts = jax.tree.leaves(state.skipped)
    assert [int(n) for n in counts] == ([1] if scope == "step" else [1, 0])
    assert jax.tree.map(jnp.result_type, after) == jax.tree.map(jnp.result_type, params)
    several = jax.vmap(tx.init)({k: None if v is None else jnp.stack([v, v]) for k, v in params.items()})
    two = jax.tree.map(lambda g: g[1:3], gradients)
    _, swept = jax.vmap(tx.update)(two, several, jax.tree.map(lambda p: jnp.stack([p, p]), params))
    np.testing.assert_array_equal(jax.tree.leaves(swept.skipped)[0], [0, 1])


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

    for inner in (adamx.adam(0.1), adamx.fused_adam(0.1)):
        bare = temporary(lambda p, s, g, tx=inner: adamx.step(tx, g, s, p), inner)
        for scope in ("step", "leaf"):
            tx = adamx.skip_nonfinite(inner, scope)
            assert temporary(lambda p, s, g, tx=tx: adamx.step(tx, g, s, p), tx) <= bare + 0.3
    assert by_update(adamx.skip_nonfinite(adamx.adam(0.1))) <= by_update(optax.apply_if_finite(adamx.adam(0.1), 3))


@pytest.mark.parametrize("wrong", [jnp.ones(2, int), jnp.ones(2, bool), "relu"], ids=["integer", "boolean", "string"])
@pytest.mark.parametrize("scope", ["step", "leaf"])
def test_what_is_no_number_is_judged_by_the_optimizer(scope, wrong):
    tx, params = adamx.skip_nonfinite(adamx.adam(0.1), scope), {"layer": {"w": jnp.ones(2)}}
    with pytest.raises(TypeError, match="gradient at layer/w must be an array of real or complex floating numbers"):
        tx.update({"layer": {"w": wrong}}, tx.init(params), params)


def test_integer_leaves_that_the_optimizer_leaves_out_are_finite():
    params = {"w": jnp.ones(2), "n": jnp.ones(2, int)}
    tx = adamx.skip_nonfinite(optax.masked(adamx.adam(0.1), {"w": True, "n": False}))
    state = tx.init(params)
    for w, skipped in ((1.0, 0), (jnp.nan, 1)):
        _, state = jax.jit(tx.update)({"w": jnp.full(2, w), "n": params["n"]}, state, params)
        assert int(state.skipped) == skipped
