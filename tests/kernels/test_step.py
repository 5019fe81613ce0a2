"""`adamx.step` itself: what it takes, under which transformations, and what it says to mistakes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from tests.backends import differing, jitted, needs_kernel


def tree(seed):
    random = np.random.default_rng(seed)
    return {name: jnp.asarray(random.standard_normal(shape), "float32") for name, shape in (("w", (8, 5)), ("b", (5,)))}


@needs_kernel
def test_the_kernel_is_in_the_program_and_works_in_place():
    params = {"a": jnp.ones(100_000), "b": jnp.ones(7)}
    for backend, there in {"auto": True, "xla": False}.items():
        tx = adamx.adam(1e-3)
        step = jax.jit(lambda p, s, g, b=backend: adamx.step(tx, g, s, p, backend=b), donate_argnums=(0, 1))
        compiled = step.lower(params, tx.init(params), params).compile()
        assert ("adamx_step" in compiled.as_text()) is there
        memory = compiled.memory_analysis()
        assert memory.temp_size_in_bytes < 4096
        assert memory.alias_size_in_bytes >= memory.output_size_in_bytes - 4096


@pytest.mark.parametrize("name", ["sgd", "lion", "adam"])
def test_any_transformation(name):
    tx, params = getattr(optax, name)(0.1), tree(0)
    updates, state = tx.update(tree(1), tx.init(params), params)
    got = adamx.step(tx, tree(1), tx.init(params), params)
    assert differing(got, (optax.apply_updates(params, updates), state)) == []


def test_extra_arguments_reach_the_transformation():
    tx, x = optax.scale_by_polyak(), jnp.ones(2)
    assert float(adamx.step(tx, x, tx.init(x), x, value=1.0)[0][0]) == 1.5


@pytest.mark.parametrize("transform", ["no jit", "disable_jit", "scan", "vmap", "grad", "strict"])
def test_under_transformations_of_jax(transform):
    tx, params, g = adamx.adam(0.1), jnp.arange(1.0, 7.0).reshape(2, 3), jnp.full((2, 3), 0.5)

    def step(p):
        return adamx.step(tx, g, tx.init(p), p)[0]

    plain = params - 0.1
    if transform == "no jit":
        got = step(params)
    elif transform == "disable_jit":
        with jax.disable_jit():
            got = step(params)
    elif transform == "scan":
        got = jax.jit(lambda p: jax.lax.scan(lambda p, _: (step(p), None), p, None, length=3)[0])(params)
        plain = params - 0.3
    elif transform == "vmap":
        got = jax.jit(jax.vmap(lambda p, g: adamx.step(tx, g, tx.init(p), p)[0]))(params, g)
    elif transform == "strict":
        with jax.numpy_dtype_promotion("strict"):
            got = jax.jit(step)(params)
    else:
        got, plain = jax.jit(jax.grad(lambda p: step(p).sum()))(params), jnp.ones((2, 3))
    np.testing.assert_allclose(got, plain, rtol=1e-5)


def test_traced_hyperparameters():
    @jax.jit
    def step(rate, b1, p):
        tx = adamx.adam(rate, b1)
        return adamx.step(tx, p, tx.init(p), p)[0]

    np.testing.assert_allclose(step(jnp.float32(0.25), jnp.float32(0.8), jnp.ones(40)), 0.75, rtol=1e-5)


def test_injected_hyperparameters():
    tx, params = optax.inject_hyperparams(adamx.adam)(learning_rate=0.5), jnp.ones(40)
    state = tx.init(params)
    np.testing.assert_allclose(jitted(tx)(params, state, params)[0], 0.5, rtol=1e-6)


@pytest.mark.parametrize("wrap", [lambda tx: tx, adamx.with_master_weights, adamx.with_stochastic_rounding])
@pytest.mark.parametrize("mask", [None, True, lambda p: jax.tree.map(lambda _: True, p)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_array_is_a_tree_as_well(wrap, mask, dtype):
    tx, x = wrap(adamx.adamw(0.5, weight_decay=1.0, mask=mask)), jnp.ones(40, dtype)
    np.testing.assert_allclose(jitted(tx)(x, tx.init(x), -x)[0], 1.0, rtol=1e-5)


@pytest.mark.parametrize("backend", ["auto", "xla"])
def test_wide_and_complex_leaves_go_through_xla(backend, x64):
    tx = adamx.adam(0.1)
    params = {"wide": jnp.ones(40, jnp.float64), "z": jnp.full(40, 1j, jnp.complex64), "x": jnp.ones(40, jnp.float32)}
    got, state = jitted(tx, backend=backend)(params, tx.init(params), params)
    assert jax.tree.map(lambda x: x.dtype, got) == jax.tree.map(lambda x: x.dtype, params)
    np.testing.assert_allclose(got["wide"], 0.9, rtol=2e-9)
    np.testing.assert_allclose(got["z"], 0.9j, rtol=1e-6)
    np.testing.assert_allclose(got["x"], 0.9, rtol=1e-6)
    assert int(state[0].count) == 1


@pytest.mark.parametrize("backend", ["auto", "xla"])
def test_mistakes_are_told_as_by_update(backend):
    tx, x = adamx.adamw(0.1), {"w": jnp.ones((2, 3))}
    state, step = tx.init(x), functools.partial(adamx.step, backend=backend)
    with pytest.raises(ValueError, match="w"):
        step(tx, {"w": jnp.ones(3)}, state, x)
    with pytest.raises(ValueError, match="unexpected b"):
        step(tx, {"w": x["w"], "b": x["w"]}, state, x)
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        step(tx, {"w": jnp.ones(3)}, state, {"w": jnp.ones(3)})
    with pytest.raises(TypeError, match="expected"):
        step(tx, x, state[0], x)
    with pytest.raises(TypeError, match="expected"):
        step(tx, x, optax.adamw(0.1).init(x), x)
    with pytest.raises(TypeError, match="expected"):
        step(adamx.with_master_weights(tx), x, state, x)


@needs_kernel
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_gradients_give_moments_within_two_units(dtype):
    """XLA contracts a sum otherwise where it widens a gradient. Each way rounds a square, a product and the sum."""
    rng, b = np.random.default_rng(0), np.float32([0.9, 0.999])
    params = {"w": jnp.ones((256, 256))}
    gradients = {"w": jnp.asarray(rng.standard_normal((256, 256)), dtype)}
    fused, composed = adamx.adamw(1e-3), adamx.adamw(1e-3)
    _, before = jitted(composed)(params, composed.init(params), {"w": jnp.asarray(rng.standard_normal((256, 256)))})
    moments = [jitted(tx)(params, before, gradients)[1][0] for tx in (fused, composed)]
    g = np.asarray(gradients["w"], np.float32)
    for name, old, new, beta in (("mu", before[0].mu, g, b[0]), ("nu", before[0].nu, g * g, b[1])):
        one, other = (np.asarray(getattr(m, name)["w"]) for m in moments)
        terms = np.max(np.abs([beta * np.asarray(old["w"]), (1 - beta) * new, one]), axis=0)
        assert np.max(np.abs(one.astype(np.float64) - other) / np.spacing(terms)) <= 2


@pytest.mark.slow
@pytest.mark.parametrize("make", [adamx.adamw])
@pytest.mark.parametrize(("size", "backend"), [(20_000, "kernel"), (20, "xla")])
def test_a_half_precision_gradient_does_not_take_the_decay_of_a_wider_parameter(make, size, backend):
    """lr λ θ is below half a unit in the last place of the gradient's dtype, in which `update` rounds it away."""
    params, gradients, rate, decay = jnp.full(size, 0.01), jnp.ones(size, "bfloat16"), 1e-4, 0.02
    moved = []
    for weight_decay in (decay, 0.0):
        tx = make(rate, weight_decay=weight_decay)
        step = jitted(tx)
        p, state = params, tx.init(params)
        for _ in range(100):
            p, state = step(p, state, gradients)
        moved.append(np.float64(p[0]))
    thetas = 0.01 - rate * np.arange(100)
    np.testing.assert_allclose(moved[0] - moved[1], -rate * decay * thetas.sum(), rtol=0.1)


@pytest.mark.slow
def test_float8_parameters_take_their_steps():
    tx, p = adamx.with_master_weights(adamx.adam(0.25)), jnp.ones(4, "float8_e4m3fn")
    p, _ = adamx.step(tx, jnp.ones(4, "float8_e4m3fn"), tx.init(p), p)
    assert p.dtype == "float8_e4m3fn"
    np.testing.assert_array_equal(p.astype(jnp.float32), 0.75)
