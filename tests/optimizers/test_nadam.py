import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx


@pytest.mark.slow
@pytest.mark.parametrize(
    ("named", "flagged", "arguments"),
    [
        (adamx.nadam, adamx.adam, {}),
        (adamx.nadamw, adamx.adamw, {"weight_decay": 0.1, "mask": {"w": True, "b": False}}),
    ],
)
def test_the_named_optimizers_are_the_flag(named, flagged, arguments):
    params = {"w": jnp.asarray([1.0, -2.0]), "b": jnp.asarray([3.0])}
    narrow = {"mu_dtype": "bfloat16", "nu_dtype": "bfloat16"}
    for more in ({}, narrow, {"precise": True, "b1": 0.95}):
        one, two = named(0.1, **arguments, **more), flagged(0.1, nesterov=True, **arguments, **more)
        a, b = (tx.update(params, tx.init(params), params) for tx in (one, two))
        assert jax.tree.structure(a) == jax.tree.structure(b)
        jax.tree.map(np.testing.assert_array_equal, a, b)
