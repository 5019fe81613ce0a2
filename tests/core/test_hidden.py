import warnings

import jax.numpy as jnp
import optax
import pytest

import adamx
from adamx.core.hidden import HIDDEN, hides_one_pass

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
    assert adamx.explain(tx, PARAMS).why == HIDDEN
    with pytest.warns(UserWarning, match=r"use adamx\.chain"):
        adamx.step(tx, PARAMS, tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize("name", [name for name in WRAPPERS if name != "inject"])
def test_where_nothing_is_hidden_nothing_is_told(name):
    inside = adamx.chain(optax.clip(1.0), adamx.adamw(1e-3))
    for tx in (WRAPPERS[name](inside), WRAPPERS[name](optax.chain(optax.clip(1.0), optax.sgd(1e-3)))):
        assert adamx.explain(tx, PARAMS).why != HIDDEN
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            adamx.step(tx, PARAMS, tx.init(PARAMS), PARAMS)


def test_a_function_is_no_chain():
    assert not hides_one_pass(lambda updates, state, params=None: (updates, state))
