import jax
import jax.numpy as jnp
import optax
import pytest

import adamx
from adamx.storage import Int8

PARAMS = {"w": jnp.zeros((64, 128)), "norm": jnp.zeros(128)}
W, NORM = 64 * 128, 128


@pytest.mark.parametrize(
    ("arguments", "w", "norm"),
    [
        ({}, 8, 8),
        ({"mu_dtype": "bfloat16", "nu_dtype": "bfloat16"}, 4, 4),
        ({"mu_dtype": Int8(), "nu_dtype": Int8()}, 2.125, 8),
        ({"mu_dtype": "bfloat16", "nu_dtype": Int8()}, 3.0625, 6),
        ({"mu_dtype": "float8_e5m2", "nu_dtype": "float16"}, 1 + 2 / 64 + 2 + 2 / 64, 3 + 4 / 64),
    ],
)
def test_bytes_by_leaf(arguments, w, norm):
    tx = adamx.adam(1e-3, **arguments)
    for state in (tx.init(PARAMS), jax.eval_shape(tx.init, PARAMS)):
        found = adamx.state_bytes(state)
        assert found.leaves == {"w": (W, w * W), "norm": (NORM, norm * NORM)}
        assert found.rest == (8 if arguments else 4)
        assert found.total == w * W + norm * NORM + found.rest
        assert found.per_parameter == found.total / (W + NORM)


def test_master_weights_and_other_states_are_counted():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    tx = optax.chain(optax.trace(0.9), adamx.with_master_weights(adamx.adam(1e-3, nu_dtype="bfloat16")))
    found = adamx.state_bytes(tx.init(params))
    assert found.leaves == {"w": (W, 8 * W), "norm": (NORM, 8 * NORM)}
    assert found.rest == 2 * (W + NORM) + 8


def test_the_table_names_each_leaf():
    text = str(adamx.state_bytes(adamx.adam(1e-3).init(PARAMS)))
    assert [line.split()[0] for line in text.splitlines()] == ["leaf", "norm", "w", "everything", "total"]
    assert "8.000" in text


def test_a_state_without_moments():
    found = adamx.state_bytes(optax.sgd(1.0).init(PARAMS))
    assert (found.leaves, found.rest, found.total) == ({}, 0, 0)
    assert found.per_parameter != found.per_parameter
    assert "total" in str(found)
