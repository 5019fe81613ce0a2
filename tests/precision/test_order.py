import warnings

import jax.numpy as jnp
import optax
import pytest

import adamx

PARAMS = {"a": jnp.ones(3, jnp.bfloat16), "b": jnp.ones(3, jnp.bfloat16)}
MASTERS = adamx.with_master_weights(adamx.adam(1e-3))
ROUNDED = adamx.with_stochastic_rounding(adamx.adam(1e-3))
GROUPS = {"a": "x", "b": "y"}
HALF = optax.scale(0.5)
LOST = {
    "masters": optax.chain(MASTERS, HALF),
    "rounded": optax.chain(optax.identity(), ROUNDED, adamx.scale_by_path({"a": 0.5})),
    "a chain in a chain": optax.chain(optax.chain(optax.identity(), MASTERS), HALF),
    "a chain in a guard": adamx.skip_nonfinite(optax.chain(MASTERS, HALF)),
    "a chain in a mask": optax.masked(optax.chain(MASTERS, HALF), True),
    "groups": optax.chain(optax.partition({"x": MASTERS, "y": optax.sgd(0.1)}, GROUPS), HALF),
    "a chain in a group": optax.partition({"x": optax.chain(MASTERS, HALF), "y": optax.sgd(0.1)}, GROUPS),
    "named": optax.named_chain(("masters", MASTERS), ("half", HALF)),
    "several steps": optax.chain(optax.MultiSteps(MASTERS, 2).gradient_transformation(), HALF),
    "a guard in a chain": optax.chain(adamx.skip_nonfinite(MASTERS), HALF),
}
KEPT = {
    "alone": MASTERS,
    "around a chain": adamx.with_master_weights(optax.chain(adamx.adam(1e-3), HALF)),
    "last": optax.chain(optax.clip_by_global_norm(1.0), MASTERS),
    "in one group": optax.partition({"x": MASTERS, "y": optax.sgd(0.1)}, GROUPS),
    "in two groups": optax.partition({"x": MASTERS, "y": ROUNDED}, GROUPS),
    "several steps": optax.MultiSteps(ROUNDED, 2).gradient_transformation(),
    "without": optax.chain(adamx.adam(1e-3), HALF),
    "a mask for each group": optax.chain(*(optax.masked(MASTERS, adamx.match(name)) for name in PARAMS)),
}


def step(tx):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        adamx.step(tx, PARAMS, tx.init(PARAMS), PARAMS)
    words = {str(w.message) for w in caught if w.category is UserWarning}  # once or, in a branch, twice
    return {text for text in words if "hides the one pass" not in text}


@pytest.mark.parametrize("tx", LOST.values(), ids=LOST)
def test_a_chain_that_goes_on_is_told_to_go_inside(tx):
    (words,) = step(tx)
    assert words.startswith("a chain goes on behind with_")
    assert "Put the wrapper around the whole chain: adamx.with_" in words


@pytest.mark.parametrize("tx", KEPT.values(), ids=KEPT)
def test_what_keeps_the_updates_is_fine(tx):
    assert step(tx) == set()
