import jax.numpy as jnp
import optax
import pytest

import adamx
from adamx.core.errors import check_empty, check_params, schedule_added, wrong_state


def test_a_state_that_init_did_not_return_is_named_with_the_way_out():
    words = str(wrong_state("MomentsState", {"count": 0, "mu": 1}, " in which mu is wrong"))
    assert "expected the state that init returned, MomentsState, got dict with the keys ['count', 'mu']" in words
    assert "in which mu is wrong" in words
    assert "update(gradients, state, params)" in words
    assert "got tuple of 2" in str(wrong_state("MomentsState", (1, 2)))


def test_a_schedule_that_became_a_number_and_back():
    counted = optax.ScaleByScheduleState(jnp.int32(3))
    with pytest.raises(TypeError, match=r"learning_rate was a schedule .* is a number now"):
        check_empty(counted, "learning_rate")
    assert check_empty(optax.EmptyState()) == optax.EmptyState()
    assert "was a number when it was made and is a schedule now" in schedule_added("learning_rate", optax.EmptyState())
    assert "there was a mask" in schedule_added("weight_decay", optax.MaskedState(counted))
    assert schedule_added("learning_rate", adamx.adam(0.1)) == ""


def test_missing_parameters_are_told():
    with pytest.raises(ValueError, match=r"weight decay needs the parameters: tx\.update\(gradients, state, params\)"):
        check_params("weight decay", None)
    assert check_params("weight decay", 1.0) == 1.0


TAKES_ONE = {
    "accumulate": lambda tx: adamx.accumulate(tx, 2),
    "chain": lambda tx: adamx.chain(adamx.clip_by_global_norm(1.0), tx),
    "ema": lambda tx: adamx.with_ema(tx, 0.9),
    "explain": lambda tx: adamx.explain(tx, jnp.ones(2)),
    "guard": adamx.skip_nonfinite,
    "host": adamx.on_host,
    "join": adamx.join,
    "master weights": adamx.with_master_weights,
    "m alone": adamx.on_first_moment,
    "norms": adamx.with_norms,
    "spikes": adamx.skip_spikes,
    "step": lambda tx: adamx.step(tx, jnp.ones(2), (), jnp.ones(2)),
    "stochastic rounding": adamx.with_stochastic_rounding,
}


@pytest.mark.parametrize("name", TAKES_ONE)
def test_what_is_no_transformation_is_told(name):
    given = {"function adamw": adamx.adamw, "list": [adamx.adam(0.1)], "float 0.001": 1e-3, "NoneType None": None}
    for words, tx in given.items():
        with pytest.raises(TypeError, match=f"expected a transformation such as .*, got .*{words}"):
            TAKES_ONE[name](tx)
    with pytest.raises(TypeError, match="call it with its arguments"):
        TAKES_ONE[name](adamx.adamw)
    with pytest.raises(TypeError, match=r"adamx\.chain\(\*stages\)"):
        TAKES_ONE[name]([adamx.adam(0.1)])


def test_a_transformation_may_be_any_pair_of_init_and_update():
    tx = adamx.chain(adamx.clip_by_global_norm(1.0), optax.MultiSteps(adamx.adam(0.1), 1))
    assert adamx.step(tx, jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2))[0].shape == (2,)
