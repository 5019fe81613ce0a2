import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.testing import reference_adam


def test_looks_one_step_ahead():
    gradients = np.random.default_rng(0).standard_normal((20, 5))
    tx = adamx.scale_by_adam(nesterov=True)
    state = tx.init(jnp.zeros(5))
    exact = reference_adam(np.zeros(5), gradients, -1.0, nesterov=True).update
    for t, g in enumerate(gradients):
        u, state = tx.update(jnp.asarray(g, jnp.float32), state)
        np.testing.assert_allclose(u, exact[t], rtol=1e-4, atol=1e-5)


def test_by_hand_is_the_flag():
    by_hand = optax.chain(adamx.scale_by_moments(), adamx.nesterov(), adamx.bias_correction())
    by_flag = adamx.scale_by_adam(nesterov=True)
    g = jnp.asarray([1.0, -2.0])
    a, _ = by_hand.update(g, by_hand.init(g))
    b, _ = by_flag.update(g, by_flag.init(g))
    np.testing.assert_array_equal(a, b)


def test_twice_is_refused():
    tx = optax.chain(adamx.scale_by_moments(), adamx.nesterov(), adamx.nesterov(), adamx.bias_correction())
    with pytest.raises(TypeError, match="right behind scale_by_moments"):
        tx.update(jnp.ones(1), tx.init(jnp.ones(1)))


def test_precise():
    tx = adamx.scale_by_adam(b2=0.999999, nesterov=True, precise=True)
    u, _ = tx.update(jnp.float32(0.3), tx.init(jnp.float32(0)))
    exact = reference_adam(0.0, [0.3], -1.0, beta2=0.999999, nesterov=True).update[0]
    np.testing.assert_allclose(u, exact, rtol=5e-7)
