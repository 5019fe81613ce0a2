import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamx.norm import global_norm, known_norm, of_parts


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_summed_in_float32(dtype):
    g = {"w": jnp.full((300, 300), 3.0, dtype), "b": jnp.full(300, 1e-3, dtype)}
    np.testing.assert_allclose(global_norm(g), 900.0, rtol=1e-6)


def test_squares_that_overflow():
    g = jnp.full((10, 10), 1e30)
    np.testing.assert_allclose(jax.jit(global_norm)({"g": g}), 1e31, rtol=1e-6)
    assert jnp.isnan(global_norm(g.at[0, 0].set(jnp.nan)))
    assert jnp.isinf(global_norm(g.at[0, 0].set(jnp.inf)))
    assert global_norm({}) == global_norm({"a": jnp.zeros((0, 3))}) == 0


@pytest.mark.slow
def test_complex_and_wide_numbers(x64):
    assert global_norm([jnp.array([3 + 4j]), jnp.zeros(2)]) == 5.0
    assert global_norm({"w": jnp.full(4, 1.0, jnp.float64)}).dtype == jnp.float64
    with jax.numpy_dtype_promotion("strict"):
        mixed = global_norm([jnp.full(4, 1.5, jnp.float64), jnp.full(4, 2.0, jnp.float32)])
    assert (mixed, mixed.dtype) == (5.0, jnp.float64)


def test_a_known_norm_is_that_of_the_same_arrays_alone():
    tree = {"a": jnp.ones(4), "b": jnp.ones(5)}
    with known_norm(tree, jnp.float32(7)):
        assert global_norm(tree) == global_norm(list(tree.values())) == 7
        assert global_norm({**tree, "a": tree["a"] + 0}) == global_norm([*tree.values(), jnp.zeros(1)]) == 3
        assert global_norm(tree, frozenset()) == 3
        with known_norm(tree, None):
            assert global_norm(tree) == 3
        assert global_norm(tree) == 7
    assert global_norm(tree) == 3


def test_the_norm_of_a_whole_is_that_of_its_parts():
    parts = jnp.array([[3.0, 0.0, 3e30, 3e-30, jnp.inf, jnp.nan], [4.0, 0.0, 4e30, 4e-30, 1.0, 1.0]])
    np.testing.assert_allclose(of_parts(parts), [5, 0, 5e30, 5e-30, np.inf, np.nan], rtol=1e-6)
    assert of_parts(jnp.zeros((0, 2))).tolist() == [0, 0]
