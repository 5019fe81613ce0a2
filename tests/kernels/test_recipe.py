import dataclasses
import inspect

import jax.numpy as jnp
import pytest

import adamx
from adamx.kernels.recipe import Recipe
from tests.backends import differing

PARAMS = {"w": jnp.linspace(0.5, 1.0, 12).reshape(3, 4), "b": jnp.ones(3)}
ADAMW = (1e-2, 0.8, 0.99, 1e-6, 1e-9, "bfloat16", 0.1, {"w": True, "b": False}, True, "bfloat16", False)
ADAM = (*ADAMW[:6], 0.0, None, *ADAMW[8:])


@pytest.mark.parametrize(
    ("plain", "recipe"),
    [
        (adamx.adam, Recipe(*ADAM, decoupled=False)),
        (adamx.adamw, Recipe(*ADAMW, decoupled=True)),
    ],
)
def test_builds_the_composed_optimizer(plain, recipe):
    arguments = {f.name: getattr(recipe, f.name) for f in dataclasses.fields(recipe)}
    theirs = plain(**{name: arguments[name] for name in inspect.signature(plain).parameters})
    ours = recipe.build()
    state = theirs.init(PARAMS)
    assert len(state) == recipe.stages
    assert differing(ours.update(PARAMS, state, PARAMS), theirs.update(PARAMS, state, PARAMS)) == []


def test_arrays_are_what_may_be_traced():
    recipe = Recipe(*ADAM, decoupled=False).replace(learning_rate=jnp.float32(0.5), b1=jnp.float32(0.5))
    assert recipe.arrays() == {"learning_rate": 0.5, "b1": 0.5}
    assert recipe.b2 == 0.99
