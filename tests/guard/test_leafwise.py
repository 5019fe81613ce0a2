import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.guard.leafwise import Leaves, crossing

PARAMS = {"a": jnp.ones((4, 32)), "b": (jnp.ones(2), None), "c": jnp.ones(())}
CODED = adamx.storage.Int8(block_size=32, min_size=0)
OPTIMIZERS = {
    "adam": adamx.adam(0.1),
    "masked decay": adamx.adamw(0.1, mask={"a": True, "b": (False, None), "c": True}),
    "int8": adamx.adam(0.1, mu_dtype=CODED, nu_dtype=CODED),
    "master weights": adamx.with_master_weights(adamx.adam(0.1)),
    "masked": optax.masked(adamx.adam(0.1), {"a": True, "b": (False, None), "c": True}),
    "injected": optax.inject_hyperparams(adamx.adam)(0.1),
    "sgd": optax.sgd(0.1),
}


@pytest.mark.parametrize("tx", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_apart_and_together(tx):
    state, leaves = tx.init(PARAMS), Leaves(tx, jax.tree.structure(PARAMS))
    again = leaves.together(state, *leaves.apart(state))
    assert jax.tree.structure(again) == jax.tree.structure(state)
    for x, y in zip(jax.tree.leaves(again), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_codec_belongs_to_its_leaf():
    tx = OPTIMIZERS["int8"]
    own, shared = Leaves(tx, jax.tree.structure(PARAMS)).apart(tx.init(PARAMS))
    assert [type(x).__name__ for x in own[0]] == ["Quantized", "Quantized"]
    assert [x.shape for x in own[2]] == [(), ()]
    assert [x.dtype.name for x in shared] == ["int32", "uint32"]


def test_only_one_leaf():
    leaves = Leaves(adamx.adam(0.1), jax.tree.structure(PARAMS))
    alone = leaves.only(1, PARAMS)
    assert jax.tree.leaves(alone) == [PARAMS["b"][0]]
    assert alone["a"] == optax.MaskedNode()
    assert leaves.only(1, 3.0) == 3.0


@pytest.mark.parametrize(
    ("tx", "words"),
    [
        (adamx.adamw(0.1), ""),
        (adamx.fused_adam(0.1, nesterov=True), ""),
        (optax.adafactor(0.1), ""),
        (optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)), "the update of a depends on the gradient of b/0"),
        (optax.chain(optax.scale(2.0), optax.normalize_by_update_norm()), "the update of a depends on"),
    ],
)
def test_crossing(tx, words):
    found = crossing(tx, PARAMS, tx.init(PARAMS), PARAMS)
    assert found.startswith(words) if words else found == ""
