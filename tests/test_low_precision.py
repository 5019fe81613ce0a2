"""The promises of low-precision storage over whole runs, in short; `benchmarks/codecs.py` has the long form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import adamx
import adamx.testing
from adamx.storage import Float, Int4, Int8
from adamx.storage.choice import moment_codecs

SHAPE, STEPS = (32, 128), 400
FLOAT8 = {name: name for name in ("float8_e4m3fn", "float8_e5m2")}
CODECS = FLOAT8 | {"bfloat16": "bfloat16", "int8": Int8(min_size=4096), "int4": Int4(min_size=4096)}
# Mean factor, median error, largest step.
EIGHT = (0.08, 0.07, 2.0)
BARS = {"bfloat16": (0.01, 0.015, 2.0), "int8": EIGHT, "int4": (0.1, 0.5, 2.0)} | dict.fromkeys(FLOAT8, EIGHT)


def constant(random):
    return np.broadcast_to(random.standard_normal(SHAPE), (STEPS, *SHAPE))


def normal(random):
    return random.standard_normal((STEPS, *SHAPE))


def drop(random):
    return normal(random) * np.where(np.arange(STEPS) < STEPS // 2, 1.0, 0.01)[:, None, None]


def outliers(random):
    return normal(random) * np.where(np.arange(SHAPE[1]) == 5, 1e4, 1.0)


def sparse(random):
    return normal(random) * (random.random((STEPS, *SHAPE)) < 0.01)


STREAMS = (constant, normal, drop, outliers, sparse)


@functools.cache
def exact(stream):
    """The gradients and the directions of Adam in float64."""
    gradients = np.asarray(stream(np.random.default_rng(0)), np.float32)
    return gradients, adamx.testing.reference_adam(np.zeros(SHAPE), gradients, -1.0).update


def directions(gradients, **arguments):
    tx = adamx.scale_by_adam(**arguments)

    def step(state, g):
        u, state = tx.update(g, state)
        return state, u

    return np.asarray(jax.jit(lambda g: jax.lax.scan(step, tx.init(g[0]), g)[1])(jnp.asarray(gradients)), np.float64)


def score(u, expected):
    large = np.abs(expected) > 0.1 * np.sqrt(np.mean(expected**2))
    slope = (u * expected).sum() / (expected**2).sum()
    return slope, np.median(np.abs(u[large] / expected[large] - 1)), np.abs(u).max() / np.abs(expected).max()


@pytest.mark.parametrize("stream", STREAMS, ids=lambda s: s.__name__)
@pytest.mark.parametrize("codec", CODECS)
def test_low_moments_follow_float64_adam(codec, stream):
    gradients, expected = exact(stream)
    factor, median, largest = score(directions(gradients, mu_dtype=CODECS[codec], nu_dtype=CODECS[codec]), expected)
    assert abs(factor - 1) <= BARS[codec][0]
    assert median <= BARS[codec][1]
    assert largest <= BARS[codec][2]


def test_rounding_to_nearest_does_not():
    gradients, nearest = exact(constant)[0], Float("bfloat16", stochastic=False)
    expected = adamx.testing.reference_adam(np.zeros(SHAPE), gradients, -1.0, beta2=0.998).update
    _, median, _ = score(directions(gradients, b2=0.998, mu_dtype=nearest, nu_dtype=nearest), expected)
    assert median > 0.02


@pytest.mark.slow
@pytest.mark.parametrize(("codec", "within"), [("bfloat16", 0.02), ("int8", 0.1)])
def test_the_effective_rate_after_a_drop_with_one_element_of_each_block_staying(codec, within):
    g = np.ones((5000, 1, 4096), np.float32)
    g[2000:] = np.where(np.arange(4096) % 32 == 0, 1.0, 0.1)
    expected = adamx.testing.reference_adam(np.zeros((1, 1)), g[:, :, 1:2], -1.0).update[:, 0, 0]
    u = directions(g, mu_dtype=CODECS[codec], nu_dtype=CODECS[codec])[:, 0, 1:]
    others = np.arange(1, 4096) % 32 != 0
    factor = u[:, others].mean(axis=1) / expected
    assert np.abs(factor - 1).max() < 2 * within
    np.testing.assert_allclose(factor[2000:].mean(), 1, atol=within)
    assert np.abs(u).max() <= 2 * np.abs(expected).max()


@pytest.mark.slow
def test_bfloat16_parameters_that_plain_rounding_leaves_where_they_are():
    """2,000 steps of -1e-4 from 1: float32 comes to 0.8."""

    def trained(tx):
        params = jnp.ones(1000, jnp.bfloat16)

        def step(carry, _):
            params, state = carry
            updates, state = tx.update(jnp.ones(1000, jnp.bfloat16), state, params)
            return (optax.apply_updates(params, updates), state), None

        return np.asarray(jax.lax.scan(step, (params, tx.init(params)), length=2000)[0][0], np.float64)

    assert (trained(optax.adam(1e-4)) == 1).all()
    np.testing.assert_allclose(trained(adamx.with_master_weights(adamx.adam(1e-4))), 0.8, atol=2**-9)
    assert abs(trained(adamx.with_stochastic_rounding(adamx.adam(1e-4))).mean() - 0.8) < 0.001


RUNS = {
    "bfloat16": lambda: adamx.adamw(1e-3, mu_dtype="bfloat16", nu_dtype="bfloat16"),
    "int8": lambda: adamx.adam(1e-3, mu_dtype=Int8(min_size=0), nu_dtype=Int8(min_size=0)),
    "int4": lambda: adamx.adam(1e-3, mu_dtype=Int4(min_size=0), nu_dtype=Int4(min_size=0)),
    "float8": lambda: adamx.adam(1e-3, mu_dtype="float8_e5m2", nu_dtype="float8_e4m3fn"),
    "master weights": lambda: adamx.with_master_weights(adamx.adam(1e-3, nu_dtype="bfloat16")),
    "24-bit master weights": lambda: adamx.with_master_weights(adamx.adam(1e-3, nu_dtype="bfloat16"), bits=24),
    "stochastic rounding": lambda: adamx.with_stochastic_rounding(adamx.adam(1e-3)),
}


@pytest.mark.slow
@pytest.mark.parametrize("make", RUNS.values(), ids=RUNS.keys())
def test_save_restore_continue_with_equal_bits(make, tmp_path):
    tx = make()
    params = {"w": jnp.ones((4, 64), jnp.bfloat16), "b": jnp.ones(3)}

    @jax.jit
    def step(params, state, key):
        g = jax.tree.map(lambda p: jax.random.normal(key, p.shape, p.dtype), params)
        updates, state = tx.update(g, state, params)
        return optax.apply_updates(params, updates), state

    def train(params, state, keys):
        for key in keys:
            params, state = step(params, state, key)
        return params, state

    keys = jax.random.split(jax.random.key(0), 20)
    middle = train(params, tx.init(params), keys[:10])
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", middle)
        checkpointer.wait_until_finished()
        template = jax.eval_shape(lambda p: (p, tx.init(p)), params)
        restored = checkpointer.restore(tmp_path / "state", template)
    assert jax.tree.structure(restored) == jax.tree.structure(middle)
    expected, got = train(*middle, keys[10:]), train(*restored, keys[10:])
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(
            np.asarray(a).view(f"u{a.dtype.itemsize}"), np.asarray(b).view(f"u{b.dtype.itemsize}")
        )


LOW = {
    "bfloat16": {"mu_dtype": "bfloat16", "nu_dtype": "bfloat16"},
    "int8": dict.fromkeys(("mu_dtype", "nu_dtype"), Int8(min_size=4096)),
}
WRAPPERS = {
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2),
    "masked": lambda tx: optax.masked(tx, {"w": True, "b": False}),
    "partition": lambda tx: optax.partition({"a": tx, "z": optax.set_to_zero()}, {"w": "a", "b": "z"}),
    "named_chain": lambda tx: optax.named_chain(("adam", tx)),
    "flatten": optax.flatten,
}


@pytest.mark.slow
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
@pytest.mark.parametrize("arguments", LOW.values(), ids=LOW.keys())
def test_optax_wrappers(arguments, wrap):
    params = {"w": jnp.ones((32, 128)), "b": jnp.ones(5)}
    tx = wrap(adamx.adamw(1e-2, nesterov=True, **arguments))
    exact = wrap(adamx.adamw(1e-2, nesterov=True))
    state, reference, step = tx.init(params), exact.init(params), jax.jit(tx.update)
    for t in range(6):
        g = jax.tree.map(lambda p: jnp.cos(p * t + jnp.arange(p.size).reshape(p.shape)), params)
        updates, after = step(g, state, params)
        assert jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, state)
        state = after
        expected, reference = exact.update(g, reference, params)
    np.testing.assert_allclose(updates["w"], expected["w"], atol=2e-3)
    assert step._cache_size() == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["int8", "bfloat16"])
@pytest.mark.parametrize("mode", ["vmap", "strict", "disable_jit", "x64", "injected", "swept"])
def test_modes(name, mode, request):
    arguments = LOW[name]
    if mode == "x64":
        request.getfixturevalue("x64")
    g = jnp.asarray(np.random.default_rng(0).standard_normal((4, 32, 128)), jnp.float32)
    tx = adamx.adam(0.1, **arguments)
    expected, after = tx.update(g[0], tx.init(g[0]))
    if mode == "vmap":
        updates, _ = jax.vmap(tx.update)(g, jax.vmap(tx.init)(g))
        np.testing.assert_allclose(updates[0], expected, rtol=1e-5)
    elif mode == "strict":
        with jax.numpy_dtype_promotion("strict"):
            np.testing.assert_array_equal(tx.update(g[0], tx.init(g[0]))[0], expected)
    elif mode == "disable_jit":
        with jax.disable_jit():
            np.testing.assert_allclose(tx.update(g[0], tx.init(g[0]))[0], expected, rtol=1e-4)
    elif mode == "injected":
        injected = optax.inject_hyperparams(functools.partial(adamx.adam, **arguments))(0.1)
        updates, _ = jax.jit(injected.update)(g[0], injected.init(g[0]))
        np.testing.assert_allclose(updates, expected, rtol=1e-4)
    elif mode == "swept":

        def first(rate, b2):
            tx = adamx.adam(rate, b2=b2, **arguments)
            return tx.update(g[0], tx.init(g[0]))[0]

        updates = jax.vmap(first)(jnp.asarray([0.1, 0.2]), jnp.asarray([0.999, 0.99]))
        np.testing.assert_allclose(updates[0], expected, rtol=1e-4)
    assert jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, tx.init(g[0]))


@pytest.mark.parametrize("arguments", LOW.values(), ids=LOW.keys())
def test_no_finite_gradient_makes_an_infinite_state(arguments):
    tx = adamx.adam(1.0, **arguments)
    g = jnp.tile(jnp.asarray([3.4e38, -3.4e38, 1e30, 1e20, 2e19, 1e-38, 0.0, 1.0]), (32, 16))
    state = tx.init(g)
    for _ in range(4):
        updates, state = jax.jit(tx.update)(g, state)
        assert all(np.isfinite(np.asarray(x, np.float32)).all() for x in jax.tree.leaves((updates, state)))
        assert np.abs(updates).max() <= 2.1
    for _ in range(3):
        updates, state = jax.jit(tx.update)(jnp.zeros_like(g), state)
        assert np.isfinite(updates).all()


@pytest.mark.parametrize("arguments", LOW.values(), ids=LOW.keys())
def test_zero_gradients_give_exactly_zero(arguments):
    tx = adamx.adam(1.0, eps=0.0, **arguments)
    updates, state = jax.jit(tx.update)(jnp.zeros((32, 128)), tx.init(jnp.zeros((32, 128))))
    np.testing.assert_array_equal(updates, 0)
    for codec, stored in zip(moment_codecs(**arguments, b1=0.9, b2=0.999), state[0][1:3], strict=True):
        np.testing.assert_array_equal(codec.decode(stored, jnp.float32), 0)
