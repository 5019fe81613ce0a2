"""Laws of Adam over random trees, streams, betas and rates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from hypothesis import given, settings
from hypothesis import strategies as st

import adamx

few = settings(max_examples=8, deadline=None, derandomize=True, database=None)
betas = st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999])
seeds = st.integers(0, 2**16)


def stream(seed, steps=12, n=24):
    random = np.random.default_rng(seed)
    return jnp.asarray(random.standard_normal((steps, n)) * 10.0 ** random.integers(-3, 3, n), jnp.float32)


def run(tx, gradients, params=None):
    """All updates, in one compiled loop."""
    params = jax.tree.map(lambda g: jnp.zeros_like(g[0]), gradients) if params is None else params

    def step(state, g):
        updates, state = tx.update(g, state, params)
        return state, updates

    return jax.jit(lambda: jax.lax.scan(step, tx.init(params), gradients)[1])()


def factored_adam(alpha, b1, b2, eps):
    """The form in the text before section 2.1 of the paper: both corrections in one scalar step size."""

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
    g = stream(seed)
    a, b = run(factored_adam(1e-3, b1, b2, 1e-8), g), run(adamx.adam(1e-3, b1, b2), g)
    np.testing.assert_allclose(a, b, rtol=16 * 2**-24, atol=1e-3 * 16 * 2**-24)


@few
@given(seeds, betas, betas, st.integers(-20, 20))
def test_scaling_gradients_by_a_power_of_two_changes_no_bit(seed, b1, b2, exponent):
    g = stream(seed)
    a, b = run(adamx.adam(1e-3, b1, b2, eps=0.0), g), run(adamx.adam(1e-3, b1, b2, eps=0.0), g * 2.0**exponent)
    np.testing.assert_array_equal(a, b)


@few
@given(seeds, betas, betas)
def test_flipping_the_gradient_flips_the_update(seed, b1, b2):
    g = stream(seed)
    np.testing.assert_array_equal(run(adamx.adam(1e-3, b1, b2), g), -run(adamx.adam(1e-3, b1, b2), -g))


@few
@given(seeds, betas)
def test_the_update_is_linear_in_the_rate(seed, b1):
    g = stream(seed)
    np.testing.assert_array_equal(run(adamx.adam(0.5, b1), g), run(adamx.adam(1.0, b1), g) * 0.5)


@few
@given(seeds, st.permutations(range(4)))
def test_permuting_leaves_permutes_updates(seed, order):
    g = stream(seed).reshape(12, 4, 6)
    a = run(adamx.adam(1e-3), [g[:, i] for i in range(4)])
    b = run(adamx.adam(1e-3), [g[:, i] for i in order])
    for position, i in enumerate(order):
        np.testing.assert_array_equal(a[i], b[position])


@few
@given(seeds, st.integers(1, 23))
def test_chunking_a_leaf_changes_nothing_but_the_last_bits(seed, cut):
    g = stream(seed)
    whole, parts = run(adamx.adam(1e-3), g), run(adamx.adam(1e-3), {"a": g[:, :cut], "b": g[:, cut:]})
    # A vector loop and its remainder are contracted differently: as below, a few units of the larger term.
    np.testing.assert_allclose(whole, jnp.concatenate([parts["a"], parts["b"]], axis=1), rtol=4e-6, atol=4e-9)


@few
@given(seeds, betas, betas)
def test_compiled_is_op_by_op_to_a_few_ulp(seed, b1, b2):
    # The compiler contracts a product and a sum into one rounding: the moments differ by one unit of the larger term.
    g = stream(seed, steps=4)
    tx, found = adamx.scale_by_adam(b1, b2), []
    state = tx.init(g[0])
    for row in g:
        u, state = tx.update(row, state)
        found.append(u)
    np.testing.assert_allclose(jnp.stack(found), run(tx, g), rtol=4e-6, atol=4e-6)


@few
@given(seeds, betas)
def test_a_constant_gradient_gives_steps_of_the_rate(seed, b1):
    g = jnp.broadcast_to(stream(seed)[0] + 1e-3, (12, 24))
    u = run(adamx.adam(1.0, b1, eps=0.0, precise=True), g)
    np.testing.assert_allclose(u, -jnp.sign(g), rtol=1e-6)


@few
@given(seeds, betas.filter(lambda b: b < 0.999))
def test_without_momentum_it_is_rmsprop_with_correction(seed, b2):
    g = stream(seed)
    u = run(adamx.adam(1.0, 0.0, b2, eps=0.0, precise=True), g)
    v = np.zeros(24)
    for t, row in enumerate(np.asarray(g, np.float64), start=1):
        v = b2 * v + (1 - b2) * row**2
        np.testing.assert_allclose(u[t - 1], -row / np.sqrt(v / (1 - b2**t)), rtol=2e-6)
