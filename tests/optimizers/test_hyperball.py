import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.optimizers import scale_by_hyperball

ULP = 2.0**-23


def oracle(theta, gradients, alpha, beta1=0.9, beta2=0.999, eps=1e-8):
    """AdamH of one matrix, in float64."""
    m, v, radius = np.zeros_like(theta), np.zeros_like(theta), np.linalg.norm(theta)
    for t, g in enumerate(gradients, start=1):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        u = m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps)
        theta = theta - alpha * radius * u / np.linalg.norm(u)
        theta = radius * theta / np.linalg.norm(theta)
    return theta


def trained(tx, params, stream):
    def body(carry, g):
        updates, state = tx.update(g, carry[1], carry[0])
        return (optax.apply_updates(carry[0], updates), state), None

    return jax.lax.scan(body, (params, tx.init(params)), stream)[0]


def adamh(rate, mask=None):
    return optax.chain(adamx.scale_by_adam(), scale_by_hyperball(rate, mask))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_matrix_is_that_of_the_paper(dtype, x64):
    random = np.random.default_rng(0)
    theta, stream = random.standard_normal((12, 7)), random.standard_normal((30, 12, 7))
    got, _ = trained(adamh(0.05), jnp.asarray(theta, dtype), jnp.asarray(stream, dtype))
    expected = oracle(theta, stream, 0.05)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, expected, atol=1e-5 if dtype == "float32" else 1e-12)
    np.testing.assert_allclose(
        jnp.linalg.norm(got), np.linalg.norm(theta), rtol=30 * ULP if dtype == "float32" else 1e-13
    )


@pytest.mark.slow
def test_a_stack_is_its_matrices_and_a_vector_moves_as_by_adam():
    random = np.random.default_rng(1)
    params = {"w": jnp.asarray(random.standard_normal((3, 8, 5)), "float32"), "b": jnp.ones(5)}
    stream = jax.tree.map(lambda p: jnp.asarray(random.standard_normal((4, *p.shape)), "float32"), params)
    got, _ = trained(adamh(lambda count: 0.1 / (count + 1)), params, stream)
    for i in range(3):
        alone, _ = trained(adamh(lambda count: 0.1 / (count + 1)), params["w"][i], stream["w"][:, i])
        np.testing.assert_allclose(got["w"][i], alone, rtol=0, atol=8 * ULP)
    plain, _ = trained(adamx.adam(lambda count: 0.1 / (count + 1)), params["b"], stream["b"])
    np.testing.assert_allclose(got["b"], plain, rtol=4 * ULP)


def test_a_mask_says_what_is_a_matrix():
    params = {"w": jnp.ones((2, 2)), "embedding": jnp.ones((2, 2))}
    got, _ = trained(adamh(0.1, adamx.not_matching("embedding")), params, jax.tree.map(lambda p: p[None], params))
    np.testing.assert_allclose(got["embedding"], 0.9, rtol=1e-5)
    np.testing.assert_allclose(got["w"], 1.0, rtol=4 * ULP)  # the direction is that of the matrix itself


def test_zeros_stay_and_nothing_divides_by_zero():
    params = {"zero": jnp.zeros((2, 2)), "still": jnp.ones((2, 2))}
    gradients = {"zero": jnp.ones((2, 2)), "still": jnp.zeros((2, 2))}
    got, _ = trained(adamh(0.1), params, jax.tree.map(lambda p: p[None], gradients))
    np.testing.assert_allclose(got["zero"], 0)
    np.testing.assert_allclose(got["still"], 1)


@pytest.mark.slow
def test_half_precision_keeps_its_norm_behind_master_weights():
    random = np.random.default_rng(2)
    params = jnp.asarray(random.standard_normal((64, 64)), "bfloat16")
    tx = adamx.with_master_weights(adamh(0.01))
    state, start = tx.init(params), jnp.linalg.norm(params.astype("float32"))
    step = jax.jit(lambda params, state, g: adamx.step(tx, g, state, params))
    for _ in range(5):
        params, state = step(params, state, jnp.asarray(random.standard_normal((64, 64)), "bfloat16"))
    np.testing.assert_allclose(jnp.linalg.norm(adamx.master_params(state, params)), start, rtol=1e-6)


@pytest.mark.slow
def test_through_step_it_is_update():
    params = {"w": jnp.ones((3, 4)) + jnp.eye(3, 4), "b": jnp.ones(3)}
    tx = adamx.chain(adamx.scale_by_adam(), scale_by_hyperball(0.1))
    moved, _ = adamx.step(tx, params, tx.init(params), params)
    updates, _ = tx.update(params, tx.init(params), params)
    jax.tree.map(np.testing.assert_array_equal, moved, optax.apply_updates(params, updates))
    assert "needs the updates of the optimizer" in adamx.explain(tx, params).why
    with pytest.raises(ValueError, match="scale_by_hyperball needs the parameters"):
        tx.update(params, tx.init(params))
