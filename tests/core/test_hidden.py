import warnings

import jax.numpy as jnp
import optax
import pytest

import adamx
from adamx.core.hidden import HIDES, INSTEAD, hidden_by
from adamx.core.step import UNSAID

PARAMS = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}
WRAPPERS = {
    "alone": lambda tx: tx,
    "accumulate": lambda tx: adamx.accumulate(tx, 2),
    "chain": lambda tx: adamx.chain(adamx.clip_by_global_norm(1.0), tx),
    "chain in chain": lambda tx: adamx.chain(adamx.chain(tx)),
    "ema": lambda tx: adamx.with_ema(tx, 0.9),
    "guard": adamx.skip_nonfinite,
    "spikes": adamx.skip_spikes,
    "norms": adamx.with_norms,
    "master weights": adamx.with_master_weights,
    "stochastic rounding": adamx.with_stochastic_rounding,
    "route": lambda tx: adamx.route({"w": tx}, default=None),
    "inject": lambda tx: adamx.inject_hyperparams(lambda factor: optax.chain(optax.scale(factor), tx))(1.0),
    "host": adamx.on_host,
    "two": lambda tx: adamx.skip_nonfinite(adamx.with_ema(tx, 0.9)),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_what_optax_chain_hides_is_told_through_every_wrapper(name):
    tx = WRAPPERS[name](optax.chain(optax.clip(1.0), adamx.adamw(1e-3)))
    assert adamx.explain(tx, PARAMS).why == f"optax.chain {HIDES}: use {INSTEAD['chain']}"
    with pytest.warns(UserWarning, match=r"use adamx\.chain"):
        adamx.step(tx, PARAMS, tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize("name", [name for name in WRAPPERS if name != "inject"])
def test_where_nothing_is_hidden_nothing_is_told(name):
    inside = adamx.chain(optax.clip(1.0), adamx.adamw(1e-3))
    for tx in (WRAPPERS[name](inside), WRAPPERS[name](optax.chain(optax.clip(1.0), optax.sgd(1e-3)))):
        assert HIDES not in adamx.explain(tx, PARAMS).why
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            adamx.step(tx, PARAMS, tx.init(PARAMS), PARAMS)


OF_OPTAX = {
    "chain": lambda tx: optax.chain(optax.clip_by_global_norm(1.0), tx),
    "chain in MultiSteps": lambda tx: optax.MultiSteps(optax.chain(optax.clip(1.0), tx), 2).gradient_transformation(),
    "chain, in a chain": lambda tx: optax.chain(optax.chain(optax.clip(1.0), tx), optax.identity()),
    "named_chain": lambda tx: optax.named_chain(("clip", optax.clip(1.0)), ("adam", tx)),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "masked": lambda tx: optax.masked(tx, True),
    "partition": lambda tx: optax.partition({"x": tx, "y": optax.sgd(0.1)}, {"w": "x", "b": "y"}),
}


@pytest.mark.parametrize("name", OF_OPTAX)
def test_what_a_wrapper_of_optax_hides_is_told_with_what_to_use_instead(name):
    wrapper, inside = name.split(",")[0].split(" in ")[-1], adamx.adamw(1e-3)
    for tx in map(OF_OPTAX[name], (inside, adamx.chain(inside), adamx.with_ema(inside, 0.9))):
        said = f"optax.{wrapper} {HIDES}: use {INSTEAD[wrapper]}"
        assert adamx.explain(tx, PARAMS).why == said
        with pytest.warns(UserWarning, match=said):
            adamx.step(tx, PARAMS, tx.init(PARAMS), PARAMS)
    for tx in map(OF_OPTAX[name], (optax.adamw(1e-3), adamx.amsgrad(1e-3))):
        assert HIDES not in adamx.explain(tx, PARAMS).why


def test_inject_hyperparams_holds_a_factory():
    for factory, hides in ((adamx.adamw, True), (adamx.mars, True), (adamx.amsgrad, False), (optax.adamw, False)):
        tx = optax.inject_hyperparams(factory)(1e-3)
        assert (HIDES in adamx.explain(tx, PARAMS).why) == hides


def test_what_has_no_equal_in_adamx_does_not_warn():
    tx = optax.flatten(adamx.adamw(1e-3))
    assert adamx.explain(tx, PARAMS).why == UNSAID
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adamx.step(tx, PARAMS, tx.init(PARAMS), PARAMS)


def test_a_function_of_the_same_name_hides_nothing():
    def chain(tx):
        def update(updates, state, params=None):
            return tx.update(updates, state, params)

        return update

    update = chain(adamx.adamw(1e-3))
    update.__qualname__ = "chain.<locals>.update"
    assert not hidden_by(update)
    assert not hidden_by(lambda updates, state, params=None: (updates, state))
