import jax
import jax.numpy as jnp
import optax
import pytest

import adamx
from adamx.storage import Int8
from tests.family import FAMILY

PARAMS = {"w": jnp.zeros((64, 128)), "norm": jnp.zeros(128)}
W, NORM = 64 * 128, 128


@pytest.mark.parametrize(
    ("arguments", "w", "norm"),
    [
        ({}, 8, 8),
        ({"mu_dtype": "bfloat16", "nu_dtype": "bfloat16"}, 4, 4),
        ({"mu_dtype": Int8(min_size=4096), "nu_dtype": Int8(min_size=4096)}, 2.125, 8),
        ({"mu_dtype": "bfloat16", "nu_dtype": Int8(min_size=4096)}, 3.0625, 6),
        ({"mu_dtype": "bfloat16", "nu_dtype": "float16"}, 2 + 2 + 2 / 64, 4 + 2 / 64),
        ({"mu_dtype": "float8_e5m2", "nu_dtype": "float8_e4m3fn"}, 2 + 8 / 64, 2 + 8 / 64),
    ],
)
def test_bytes_by_leaf(arguments, w, norm):
    tx = adamx.adam(1e-3, **arguments)
    for state in (tx.init(PARAMS), jax.eval_shape(tx.init, PARAMS)):
        found = adamx.state_bytes(state)
        assert found.leaves == {"w": (W, w * W), "norm": (NORM, norm * NORM)}
        assert found.rest == 4
        assert found.total == w * W + norm * NORM + found.rest
        assert found.per_parameter == found.total / (W + NORM)


def test_master_weights_and_other_states_are_counted():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    tx = optax.chain(optax.trace(0.9), adamx.with_master_weights(adamx.adam(1e-3, nu_dtype="bfloat16")))
    found = adamx.state_bytes(tx.init(params))
    assert found.leaves == {"w": (W, 10 * W), "norm": (NORM, 10 * NORM)}
    assert found.rest == 4


INT8 = {"mu_dtype": Int8(min_size=4096), "nu_dtype": Int8(min_size=4096)}
LORA = {"w": True, "norm": False}
SGD = optax.sgd(1.0, momentum=0.9)


@pytest.mark.parametrize(
    ("tx", "w", "norm"),
    [
        *(
            (entry.make(1e-3), 12 if name in ("amsgrad", "ademamix", "mars") else 8, None)
            for name, entry in FAMILY.items()
        ),
        (adamx.amsgrad(1e-3, **INT8), 2.125 + 4, 12),
        (adamx.ademamix(1e-3, **INT8), 2.125 + 1.0625, 12),
        (optax.MultiSteps(adamx.adam(1e-3), 2), 12, None),
        (adamx.skip_nonfinite(optax.MultiSteps(adamx.mars(1e-3, **INT8), 2)), 2.125 + 4 + 4, 16),
        (optax.chain(optax.ema(0.9), adamx.adam(1e-3)), 12, None),
        (optax.adam(1e-3), 8, None),
        (optax.chain(optax.trace(0.9), optax.scale_by_amsgrad()), 16, None),
        (optax.inject_hyperparams(adamx.amsgrad)(1e-3), 12, None),
        (optax.masked(adamx.amsgrad(1e-3), LORA), 12, 0),
        (optax.MultiSteps(optax.masked(adamx.adam(1e-3, **INT8), LORA), 2), 2.125 + 4, 4),
        (
            optax.partition({True: adamx.adam(1e-3), False: optax.chain(adamx.amsgrad(1e-3), optax.trace(0.9))}, LORA),
            8,
            16,
        ),
        (optax.partition({True: optax.masked(adamx.adam(1e-3), adamx.match("w")), False: SGD}, LORA), 8, 0),
    ],
)
def test_all_that_is_kept_for_a_leaf_counts(tx, w, norm):
    found = adamx.state_bytes(tx.init(PARAMS))
    norm = w if norm is None else norm
    assert found.leaves.get("w") == (W, w * W)
    assert found.leaves.get("norm", (NORM, 0)) == (NORM, norm * NORM)


def test_one_array_and_names_like_those_of_states():
    array = adamx.state_bytes(adamx.amsgrad(1e-3).init(jnp.zeros((3, 2))))
    assert array.leaves == {"the tree itself": (6, 72)}
    scalar = adamx.state_bytes(adamx.adam(1e-3).init(jnp.zeros(())))
    assert (scalar.leaves, scalar.rest) == ({"the tree itself": (1, 8)}, 4)
    params = {"count": jnp.zeros(()), "mu": jnp.zeros(3), "nu": {"mu": jnp.zeros(2)}}
    named = adamx.state_bytes(adamx.ademamix(1e-3).init(params))
    assert named.leaves == {"count": (1, 12), "mu": (3, 36), "nu/mu": (2, 24)}


def test_the_table_names_each_leaf():
    text = str(adamx.state_bytes(adamx.adam(1e-3).init(PARAMS)))
    assert [line.split()[0] for line in text.splitlines()] == ["leaf", "norm", "w", "everything", "total"]
    assert "8.000" in text


def test_a_state_without_moments():
    found = adamx.state_bytes(optax.sgd(1.0).init(PARAMS))
    assert (found.leaves, found.rest, found.total) == ({}, 0, 0)
    assert found.per_parameter != found.per_parameter
    assert "total" in str(found)
