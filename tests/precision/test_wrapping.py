import jax.numpy as jnp
import optax
import pytest

import adamx
from adamx.precision.wrapping import Wrapping
from tests.backends import differing

X = jnp.ones(3, jnp.bfloat16)


@pytest.mark.parametrize(
    ("wrap", "seed"),
    [
        (adamx.with_master_weights, None),
        (adamx.with_stochastic_rounding, 0),
        (lambda tx: adamx.with_stochastic_rounding(tx, 7), 7),
    ],
)
def test_says_what_it_wraps_and_how(wrap, seed):
    inner = optax.sgd(0.1)
    tx = wrap(inner)
    assert isinstance(tx.update, Wrapping)
    assert type(tx) is optax.GradientTransformationExtraArgs
    assert (tx.update.inner, tx.update.seed) == (inner, seed)
    again = tx.update.around(inner)
    assert differing(again.update(X, again.init(X), X), tx.update(X, tx.init(X), X)) == []
    assert again.update.seed == seed
