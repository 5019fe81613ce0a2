import copy

import jax
import jax.numpy as jnp
import optax

from adamx.core.update import Update


def double(updates, state, params=None, **extra_args):
    return jax.tree.map(lambda u: 2 * u, updates), state


def test_is_called_as_the_function_is():
    tx = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), Update(double))
    updates, state = tx.update(jnp.ones(2), tx.init(jnp.ones(2)), value=1.0)
    assert updates.tolist() == [2.0, 2.0]
    assert state == optax.EmptyState()


def test_a_copy_is_itself_as_that_of_a_function_is():
    update = Update(double)
    assert copy.copy(update) is update
    assert copy.deepcopy(update) is update
    assert jax.tree.leaves(update) == [update]
