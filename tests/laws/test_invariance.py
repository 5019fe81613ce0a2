"""Law 4: the scale of the gradients does not matter; and what else changes nothing, or only the last bits.

In float32, where most of it is exact: with ε = 0 the update is a function of ratios of gradients. Not so for β2 = 0,
where v̂ = 0 follows a gradient of 0 whatever m̂ is.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adamx
from tests.laws.streams import STEPS, SUM, adam, betas, direction, few, rates, run, seeds, shapes, some_memory, stream

equal = np.testing.assert_array_equal


def single(seed, shape="array", steps=STEPS):
    return stream(seed, shape, steps, dtype=np.float32)


def factored_adam(alpha, b1, b2):
    """The form in the text before section 2.1 of the paper: both corrections in one scalar step size."""
    eps = 1e-8

    def update(g, state, params=None):
        t, m, v = state
        t = t + 1
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        root_weight = jnp.sqrt(1 - b2**t)
        return -alpha * root_weight / (1 - b1**t) * m / (jnp.sqrt(v) + eps * root_weight), (t, m, v)

    return optax.GradientTransformation(lambda p: (jnp.int32(0), jnp.zeros_like(p), jnp.zeros_like(p)), update)


@few
@given(seeds, betas, betas)
def test_factored_is_composed(seed, b1, b2):
    g = single(seed)
    a, b = run(factored_adam, g, 1e-3, b1, b2)[0], run(adamx.adam, g, 1e-3, b1, b2)[0]
    np.testing.assert_allclose(a, b, rtol=16 * 2**-24, atol=1e-3 * 16 * 2**-24)


@pytest.mark.slow
@few
@given(seeds, shapes, betas, some_memory, rates, st.integers(-20, 20))
def test_scaling_gradients_by_a_power_of_two_changes_no_bit(seed, shape, b1, b2, alpha, exponent):
    g = single(seed, shape)
    scaled = jax.tree.map(lambda x: x * np.float32(2.0**exponent), g)
    jax.tree.map(equal, run(adam, g, alpha, b1, b2)[0], run(adam, scaled, alpha, b1, b2)[0])


@few
@given(seeds, betas, some_memory)
def test_scaling_each_element_by_another_power_of_two_changes_no_bit(seed, b1, b2):
    g = single(seed)
    diagonal = np.float32(2.0) ** np.random.default_rng(seed).integers(-20, 20, g.shape[1])
    equal(run(direction, g, b1, b2)[0], run(direction, g * diagonal.astype(np.float32), b1, b2)[0])


@pytest.mark.usefixtures("float64")
class TestInFloat64:
    @few
    @given(seeds, betas, some_memory, st.floats(-6, 6))
    def test_scaling_gradients_changes_the_last_bits_alone(self, seed, b1, b2, exponent):
        g = stream(seed, "nested")
        scaled = jax.tree.map(lambda x: x * 10.0**exponent, g)
        jax.tree.map(close, run(direction, g, b1, b2)[0], run(direction, scaled, b1, b2)[0])

    @few
    @given(seeds, betas, some_memory)
    def test_scaling_each_element_by_another_number_changes_the_last_bits_alone(self, seed, b1, b2):
        g = stream(seed)
        diagonal = 10.0 ** np.random.default_rng(seed).uniform(-6, 6, g.shape[1])
        close(run(direction, g, b1, b2)[0], run(direction, g * diagonal, b1, b2)[0])


def close(a, b):
    """Two directions up to their roundings, where m cancels up to those of a direction of size 4."""
    np.testing.assert_allclose(a, b, rtol=4 * SUM, atol=4 * SUM)


@pytest.mark.slow
@few
@given(seeds, betas, betas)
def test_flipping_the_gradient_flips_the_update(seed, b1, b2):
    g = single(seed, "nested")
    flipped = run(adamx.adam, jax.tree.map(np.negative, g), 1e-3, b1, b2)[0]
    jax.tree.map(equal, run(adamx.adam, g, 1e-3, b1, b2)[0], jax.tree.map(np.negative, flipped))


@few
@given(seeds, betas, st.integers(-20, 20))
def test_the_update_is_linear_in_the_rate(seed, b1, exponent):
    g, alpha = single(seed, "nested"), 2.0**exponent
    one = jax.tree.map(lambda u: u * np.float32(alpha), run(adamx.adam, g, 1.0, b1, 0.999)[0])
    jax.tree.map(equal, run(adamx.adam, g, alpha, b1, 0.999)[0], one)


@few
@given(seeds, betas, st.permutations(range(4)))
def test_permuting_leaves_permutes_updates(seed, b1, order):
    g = single(seed).reshape(STEPS, 4, 6)
    a = run(adam, [g[:, i] for i in range(4)], 1e-3, b1, 0.999)[0]
    b = run(adam, [g[:, i] for i in order], 1e-3, b1, 0.999)[0]
    for position, i in enumerate(order):
        equal(a[i], b[position])


@few
@given(seeds)
def test_permuting_elements_permutes_updates_but_for_the_last_bits(seed):
    g, order = single(seed), np.random.default_rng(seed).permutation(24)
    a, b = run(direction, g, 0.9, 0.999)[0], run(direction, g[:, order], 0.9, 0.999)[0]
    # A vector loop and its remainder are contracted differently: a few units of the larger term.
    np.testing.assert_allclose(a[:, order], b, rtol=4e-6, atol=4e-6)


@pytest.mark.slow
@few
@given(seeds, st.sampled_from([7, 16]))
def test_chunking_a_leaf_changes_nothing_but_the_last_bits(seed, cut):
    g = single(seed)
    whole, _ = run(adamx.adam, g, 1e-3, 0.9, 0.999)
    parts, _ = run(adamx.adam, {"a": g[:, :cut], "b": g[:, cut:]}, 1e-3, 0.9, 0.999)
    # As above, times the rate.
    np.testing.assert_allclose(whole, np.concatenate([parts["a"], parts["b"]], axis=1), rtol=4e-6, atol=4e-9)


@pytest.mark.slow
@settings(few, max_examples=4)
@given(seeds, betas, betas)
def test_compiled_is_op_by_op_to_a_few_ulp(seed, b1, b2):
    # The compiler contracts a product and a sum into one rounding: the moments differ by one unit of the larger term.
    g = single(seed, steps=4)
    # Both with the same constants: a traced β has other bits than a Python float.
    tx, found = direction(b1, b2), []
    state = tx.init(g[0])
    for row in g:
        u, state = tx.update(row, state)
        found.append(u)
    np.testing.assert_allclose(np.stack(found), run(functools.partial(direction, b1, b2), g)[0], rtol=4e-6, atol=4e-6)
