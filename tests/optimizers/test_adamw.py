import importlib
import inspect

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.testing import assert_equivalent


@pytest.mark.parametrize("name", ["adam", "adamw", "scale_by_adam"])
def test_positional_arguments_and_defaults_are_those_of_optax(name):
    ours = inspect.signature(getattr(adamx, name)).parameters
    theirs = inspect.signature(getattr(optax, name)).parameters
    positional = [p for p in theirs.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [(p.name, p.default) for p in list(ours.values())[: len(positional)]] == [
        (p.name, p.default) for p in positional
    ]
    assert theirs.keys() <= ours.keys()


def test_decay_is_not_rescaled_by_the_quotient():
    params = {"w": jnp.asarray([100.0]), "b": jnp.asarray([100.0])}
    tx = adamx.adamw(0.1, weight_decay=0.01, mask={"w": True, "b": False})
    updates, _ = tx.update({"w": jnp.asarray([1e-3]), "b": jnp.asarray([1e-3])}, tx.init(params), params)
    np.testing.assert_allclose(updates["w"] - updates["b"], -0.1 * 0.01 * 100, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(importlib.import_module("optax.transforms._adding"), "WeightDecaySchedule"),
    reason="this optax has no scheduled weight decay",
)
def test_scheduled_decay_with_a_mask_function_has_the_bits_of_optax(draw, stream):
    arguments = {"weight_decay": optax.linear_schedule(0.1, 0.0, 10), "mask": lambda p: {k: k != "wide" for k in p}}
    assert_equivalent(adamx.adamw(1e-3, **arguments), optax.adamw(1e-3, **arguments), draw(0), stream(30))


def test_needs_the_parameters():
    tx = adamx.adamw(1e-3)
    with pytest.raises(ValueError, match="needs the parameters"):
        tx.update(jnp.ones(1), tx.init(jnp.ones(1)))
