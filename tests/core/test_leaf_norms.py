import jax
import jax.numpy as jnp
import numpy as np

from adamx.core.leaf_norms import are, leaf_norms, norm, of_given


def test_the_norms_of_a_leaf_are_float32():
    g, u, w = jnp.full(4, 1.5, jnp.bfloat16), jnp.full((2, 2), 2.0), jnp.full(4, 3 + 4j)
    found = leaf_norms(g, u, w)
    assert (found.shape, found.dtype, found.tolist()) == ((3,), jnp.float32, [3.0, 4.0, 10.0])
    assert leaf_norms(g, None, w).tolist() == [3.0, 0.0, 10.0]


def test_half_precision_is_summed_in_float32():
    x = np.random.default_rng(0).standard_normal(100_000).astype(np.float16)
    expected = np.sqrt(np.sum(x.astype(float) ** 2))
    np.testing.assert_allclose(norm(jnp.asarray(x)), expected, rtol=1e-6)
    assert norm(jnp.arange(3)).dtype == jnp.float32
    np.testing.assert_allclose(norm(jnp.arange(3)), np.sqrt(5))


def test_other_gradients_take_the_place_of_those_of_a_pass():
    a, b, came = jnp.ones(4), jnp.ones(9), jnp.full(4, 2.0)
    norms = [jnp.array([2.0, 5.0, 6.0]), jnp.array([3.0, 7.0, 8.0])]
    found = of_given(norms, [a, b], [came, b])
    assert [x.tolist() for x in found] == [[4.0, 5.0, 6.0], [3.0, 7.0, 8.0]]
    assert found[1] is norms[1]
    assert of_given(norms, [a, b], None) is None


def test_gradients_are_told_by_identity():
    a, b = jnp.ones(4), jnp.ones(4)
    assert are([a, b], (a, b))
    assert not are([a, b], (b, a))
    assert not are([a], (a, b))
    assert not are([a], None)
    assert jax.jit(lambda x: jnp.float32(are([x], (x,))))(a) == 1
