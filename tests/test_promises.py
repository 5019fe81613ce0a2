"""The promises of the README, one test each: where Adam in JAX goes wrong and adamx does not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.storage.choice import moment_codec
from adamx.testing import reference_adam
from tests.soak.drift import drift

B2 = (0.999, 0.9999, 0.99999, 0.999999)


def direction_error(tx, gradients, skip, **oracle):
    """The median relative error of the direction against float64, over the steps after `skip`."""
    exact = reference_adam(np.zeros(gradients[0].shape), gradients, -1.0, **oracle).update
    state, step = tx.init(jnp.zeros_like(gradients[0])), jax.jit(tx.update)
    errors = []
    for t, g in enumerate(gradients):
        u, state = step(g, state)
        if t >= skip:
            errors.append(np.abs(np.asarray(u, np.float64) - exact[t]) / np.abs(exact[t]))
    return np.median(np.stack(errors))


@pytest.mark.parametrize("b2", B2)
@pytest.mark.parametrize("t", [*range(1, 11), 10**3, 10**6, 10**7, 2**24 - 1, 2**24 + 1, 2**31 - 1])
def test_precise_update_from_an_exact_state(t, b2):
    g = np.float32(0.37)
    weights = [-np.expm1((t - 1) * np.log(b)) for b in (0.9, b2)]
    state = adamx.MomentsState(jnp.int32(t - 1), jnp.float32(weights[0] * g), jnp.float32(weights[1] * g**2))
    u, after = jax.jit(adamx.scale_by_adam(b2=b2, precise=True).update)(g, state)
    assert after.count == t
    assert abs(float(u) - 1 / (1 + 1e-8 / g)) < 5e-7


@pytest.mark.slow
@pytest.mark.parametrize(("b2", "bound"), list(zip(B2, (2e-6, 5e-6, 1e-4, 2e-3), strict=True)))
def test_precise_average_over_many_steps(b2, bound, x64):
    assert drift(b2, 10**5, precise=True).max() <= bound  # over 10^7 in tests/soak


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.bfloat16])
@pytest.mark.parametrize("drop", [1.0, 0.01], ids=["steady", "drop100"])
def test_half_precision_parameters_over_5000_steps(dtype, drop):
    random = np.random.default_rng(0)
    gradients = [jnp.asarray(random.standard_normal(64) * (1.0 if t < 2000 else drop), dtype) for t in range(5000)]
    assert direction_error(adamx.scale_by_adam(), gradients, skip=4000) <= 0.002


@pytest.mark.parametrize("g", [1e-6, 1e-5, 1e-4, 5e-3, 256.0, 6e4])
@pytest.mark.parametrize("params", [jnp.float16, jnp.float32])
def test_float16_gradients(g, params):
    tx = adamx.scale_by_adam(eps=1e-12)
    state = tx.init(jnp.zeros(3, params))
    for _ in range(5):
        u, state = jax.jit(tx.update)(jnp.full(3, g, jnp.float16), state)
        assert u.dtype == jnp.float16
        np.testing.assert_allclose(np.asarray(u, np.float64), 1.0, rtol=1e-3)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float8_e4m3fn, jnp.float8_e5m2, jnp.float32])
def test_zero_gradients_give_exactly_zero(dtype):
    tx = adamx.adam(1e-3)
    state = tx.init(jnp.zeros(3, dtype))
    for _ in range(3):
        u, state = jax.jit(tx.update)(jnp.zeros(3, dtype), state)
        np.testing.assert_array_equal(np.asarray(u, np.float32), 0.0)


@pytest.mark.parametrize("count", [1000, 10**6])  # v̂ overflows too; v̂ is v
@pytest.mark.parametrize("precise", [False, True])
@pytest.mark.parametrize("spike", [1.9e19, 1e20, 1e30, 3.4028235e38, -3.4028235e38])
def test_a_huge_gradient_saturates_and_decays(spike, precise, count):
    tx, largest = adamx.scale_by_adam(precise=precise), np.finfo(np.float32).max
    step, state = jax.jit(tx.update), tx.init(jnp.zeros(2))
    for _ in range(1000):
        _, state = step(jnp.ones(2), state)
    state = state._replace(count=jnp.int32(count))
    u, state = step(jnp.asarray([spike, 1.0]), state)
    assert np.isfinite(u).all()
    assert np.abs(u).max() <= 2 * (1 + 2.0**-23)
    assert state.nu[0] == largest
    assert np.isfinite(state.mu).all()
    for _ in range(100):
        u, state = step(jnp.ones(2), state)
        assert np.abs(u).max() <= 2 * (1 + 2.0**-23)
    np.testing.assert_allclose(state.nu[0] / largest, 0.999**100, rtol=1e-4)


NARROW = ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", adamx.storage.Int8(min_size=0)]
NARROW += [adamx.storage.Int4(min_size=0)]


@pytest.mark.slow
@pytest.mark.parametrize("storage", NARROW, ids=[*NARROW[:-2], "int8", "int4"])
def test_a_huge_gradient_saturates_and_decays_in_every_storage(storage):
    tx = adamx.scale_by_adam(mu_dtype=storage, nu_dtype=storage)
    first, state = jax.jit(tx.update)(jnp.full(64, 3e38), tx.init(jnp.zeros(64)))
    path, later = jax.lax.scan(lambda s, _: tx.update(jnp.ones(64), s)[::-1], state, length=300)
    assert all(np.isfinite(np.asarray(x, np.float32)).all() for x in jax.tree.leaves((state, path)))
    assert max(np.abs(first).max(), np.abs(later).max()) <= 2
    codec = moment_codec("nu_dtype", storage, 0.999, square=True)
    before, after = (np.mean(codec.decode(s.nu, jnp.float32) / 2.0**100) for s in (state, path))
    np.testing.assert_allclose(after / before, 0.999**300, rtol=0.1)


def test_infinite_and_nan_gradients_show():
    tx = adamx.scale_by_adam()
    for bad in (np.inf, -np.inf, np.nan):
        u, _ = tx.update(jnp.asarray([bad, 1.0]), tx.init(jnp.zeros(2)))
        assert not np.isfinite(u[0])
        assert np.isfinite(u[1])


@pytest.mark.slow
@pytest.mark.parametrize(("eps", "eps_root", "slope"), [(1e-8, 0.0, 1e8), (1e-3, 0.0, 1e3), (0.0, 1e-8, 1e4)])
def test_gradient_of_the_update_at_zero(eps, eps_root, slope):
    tx = adamx.scale_by_adam(eps=eps, eps_root=eps_root)
    state = tx.init(jnp.zeros(3))

    def first(g):
        return tx.update(g, state)[0]

    jacobian = jax.jit(jax.jacobian(first))(jnp.asarray([0.0, 0.0, 1.0]))
    assert np.isfinite(jacobian).all()
    np.testing.assert_allclose(np.diag(jacobian)[:2], slope, rtol=1e-3)
    assert np.isfinite(jax.jit(jax.hessian(lambda g: first(g).sum()))(jnp.zeros(3))).all()


@pytest.mark.parametrize("params", [jnp.float32, jnp.bfloat16, jnp.float16, jnp.float8_e4m3fn])
@pytest.mark.parametrize("gradients", [jnp.float32, jnp.bfloat16, jnp.float16, jnp.float8_e5m2])
def test_types_never_move_and_one_compilation(params, gradients):
    tx = adamx.adamw(1e-3)
    p, g = {"w": jnp.ones(3, params)}, {"w": jnp.ones(3, gradients)}
    state = tx.init(p)
    step = jax.jit(tx.update)
    for _ in range(3):
        before = jax.tree.map(jax.typeof, state)
        updates, state = step(g, state, p)
        assert jax.tree.map(jax.typeof, state) == before
        assert updates["w"].dtype == (jnp.float32 if jnp.finfo(gradients).bits == 8 else gradients)
    assert step._cache_size() == 1
    jax.lax.scan(lambda s, _: (tx.update(g, s, p)[1], None), tx.init(p), length=3)


def test_python_float_parameters_compile_at_most_twice():
    tx = adamx.adam(1e-3)

    @jax.jit
    def step(p, state):
        updates, state = tx.update(jax.grad(lambda x: x**2)(p), state, p)
        return optax.apply_updates(p, updates), state

    p, state = 1.0, tx.init(1.0)
    sizes = []
    for _ in range(4):
        p, state = step(p, state)
        sizes.append(step._cache_size())
    assert sizes[1:] == [2, 2, 2]


@pytest.mark.slow
def test_injected_half_precision_decay_names_the_way_out():
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    with pytest.raises(ValueError, match=r"b2 has dtype bfloat16.*hyperparam_dtype=jnp.float32"):
        optax.inject_hyperparams(adamx.adam)(1e-3).init(params)
    tx = optax.inject_hyperparams(adamx.adam, hyperparam_dtype=jnp.float32)(1e-3)
    u, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(np.asarray(u["w"], np.float32), -1e-3, rtol=0.01)


def test_float32_state_is_eight_bytes_a_parameter_and_is_updated_in_place():
    n = 10**6
    tx = adamx.adam(1e-3)

    def step(params, state, g):
        updates, state = tx.update(g, state)
        return optax.apply_updates(params, updates), state

    p = jnp.zeros(n)
    state = tx.init(p)
    assert sum(x.nbytes for x in jax.tree.leaves(state)) == 8 * n + 4
    memory = jax.jit(step, donate_argnums=(0, 1)).lower(p, state, p).compile().memory_analysis()
    assert memory.alias_size_in_bytes >= 12 * n
    assert memory.temp_size_in_bytes < n / 100
