import inspect

import jax
import jax.numpy as jnp
import optax
import pytest

import adamx
from tests.backends import differing

PAIRS = [(adamx.adam, adamx.fused_adam), (adamx.adamw, adamx.fused_adamw)]
STORAGES = [{}, {"mu_dtype": "bfloat16"}, {"nu_dtype": adamx.storage.Int8(block_size=32, min_size=0)}]
PARAMS = {"w": jnp.linspace(-1.0, 1.0, 160).reshape(2, 80), "b": jnp.ones(3)}


@pytest.mark.parametrize(("plain", "fused"), PAIRS)
def test_signature_is_that_of_the_composed_optimizer(plain, fused):
    *parameters, last = inspect.signature(fused).parameters.values()
    assert parameters == list(inspect.signature(plain).parameters.values())
    assert (last.name, last.default) == ("backend", "auto")


@pytest.mark.parametrize("arguments", STORAGES)
@pytest.mark.parametrize(("plain", "fused"), PAIRS)
def test_state_and_update_are_those_of_the_composed_optimizer(plain, fused, arguments):
    ours, theirs = fused(1e-2, **arguments), plain(1e-2, **arguments)
    assert differing(ours.init(PARAMS), theirs.init(PARAMS)) == []
    assert jax.tree.structure(ours.init(PARAMS)) == jax.tree.structure(theirs.init(PARAMS))
    got, expected = (jax.jit(tx.update)(PARAMS, tx.init(PARAMS), PARAMS) for tx in (ours, theirs))
    assert differing(got, expected) == []


def test_a_state_of_one_continues_in_the_other():
    fused, plain = adamx.fused_adam(1e-2), adamx.adam(1e-2)
    params, state = adamx.step(fused, PARAMS, plain.init(PARAMS), PARAMS)
    state = plain.update(PARAMS, state, params)[1]
    assert int(state[0].count) == 2


def test_in_a_chain_through_update():
    ours, theirs = (optax.chain(optax.clip(0.5), build(1e-2)) for build in (adamx.fused_adam, adamx.adam))
    got, expected = (tx.update(PARAMS, tx.init(PARAMS), PARAMS) for tx in (ours, theirs))
    assert differing(got, expected) == []
    assert (
        differing(
            adamx.step(ours, PARAMS, ours.init(PARAMS), PARAMS), adamx.step(theirs, PARAMS, theirs.init(PARAMS), PARAMS)
        )
        == []
    )


@pytest.mark.parametrize("fused", [fused for _, fused in PAIRS])
def test_hyperparameters_are_checked(fused):
    with pytest.raises(ValueError, match=r'backend must be "auto" or "xla", got \'gpu\''):
        fused(0.1, backend="gpu")
    with pytest.raises(ValueError, match="b1"):
        fused(0.1, b1=1.5)
    with pytest.raises(TypeError, match="betas"):
        fused(0.1, betas=(0.9, 0.999))
