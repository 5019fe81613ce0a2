"""Whatever the composed step refuses the fused one refuses, in the same words."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx

CODED = adamx.storage.Int8(min_size=0)
INT8 = {"mu_dtype": CODED, "nu_dtype": CODED}
PARAMS = {"w": jnp.ones((200, 128)), "b": jnp.ones(300)}
MASK = {"w": True, "b": False}


def leaf(value):
    return lambda tree: {**tree, "b": value}


def moments(**changes):
    """From the state of `adamw` to one with other moments."""
    return lambda state: (state[0]._replace(**changes), *state[1:])


def first(make):
    return lambda state: (make(state[0]), *state[1:])


REFUSED = {  # what is wrong: arguments of adamw, the gradients, the parameters, the state; and words of the error
    "shape": ({}, leaf(jnp.ones(301)), None, None, "gradient at b has shape"),
    "broadcast": ({}, leaf(jnp.ones(1)), None, None, "gradient at b has shape"),
    "another leaf": ({}, lambda tree: {**tree, "c": jnp.ones(1)}, None, None, "unexpected c"),
    "a leaf less": ({}, lambda tree: {"w": tree["w"]}, None, None, "missing b"),
    "integers": ({}, leaf(jnp.ones(300, int)), None, None, "gradient at b must be an array of real"),
    "float0": ({}, leaf(np.zeros(300, jax.dtypes.float0)), None, None, "gradient at b must be"),
    "complex": ({}, leaf(jnp.ones(300, complex)), None, None, "gradient at b is complex64"),
    "None": ({}, leaf(None), None, None, "got None"),
    "parameters None": ({}, None, lambda tree: None, None, "adamx.step needs the parameters"),
    "a parameter None": ({}, None, leaf(None), None, "None"),
    "both of another shape": ({}, leaf(jnp.ones(301)), leaf(jnp.ones(301)), None, "shape"),
    "both complex": ({}, leaf(jnp.ones(300, complex)), leaf(jnp.ones(300, complex)), None, "complex64"),
    "integer parameters": ({}, None, leaf(jnp.ones(300, int)), None, "parameter at b must be"),
    "a dict": ({}, None, None, lambda state: {"a": 1}, "a tuple of 3 states, got dict"),
    "a list": ({}, None, None, list, "a tuple of 3 states, got list"),
    "a part of the state": ({}, None, None, lambda state: state[0], "a tuple of 3 states, got MomentsState"),
    "a shorter state": ({}, None, None, lambda state: state[:1], "a tuple of 3 states, got tuple of 1"),
    "a plain tuple": ({}, None, None, first(tuple), "MomentsState, got tuple of 3"),
    "a state of optax": ({}, None, None, first(lambda s: optax.ScaleByAdamState(*s)), "got ScaleByAdamState"),
    "a count in floats": ({}, None, None, moments(count=jnp.float32(1)), "whose count is float32"),
    "no v of a leaf": ({}, None, None, moments(nu={"w": PARAMS["w"]}), "missing b"),
    "v of another shape": ({}, None, None, moments(nu=leaf(jnp.ones(2))(PARAMS)), "nu at b has shape"),
    "integer m": ({}, None, None, moments(mu=leaf(jnp.ones(300, int))(PARAMS)), "mu at b must be"),
    "codes of another run": ({}, None, None, moments(mu=adamx.adam(0.1, **INT8).init(PARAMS)[0].mu), "restore_as"),
    "a schedule added": (
        {"learning_rate": optax.constant_schedule(0.1)},
        None,
        None,
        lambda state: (*state[:2], optax.EmptyState()),
        "ScaleByScheduleState",
    ),
    "a schedule dropped": (
        {},
        None,
        None,
        lambda state: (*state[:2], optax.ScaleByScheduleState(jnp.int32(0))),
        "EmptyState",
    ),
    "b1 is 1": ({"b1": 1 - 1e-9}, None, None, None, "b1=0.999999999 is 1 in float32"),
    "b2 is 1": ({"b2": 1 - 1e-9, **INT8}, None, None, None, "b2=0.999999999 is 1 in float32"),
    "an array that is 1": ({"b2": np.float64(1 - 1e-9)}, None, None, None, "b2=0.999999999 is 1 in float32"),
    "a schedule of arrays": ({"learning_rate": lambda count: jnp.ones(2)}, None, None, None, "learning_rate schedule"),
    "a pattern without a path": ({"mask": adamx.not_matching("head")}, None, None, None, "no path matches 'head'"),
    "a mask of other leaves": ({"mask": {"w": True}}, None, None, None, ""),
}
WRAPPERS = {
    "alone": lambda tx: tx,
    "master weights": adamx.with_master_weights,
    "stochastic rounding": adamx.with_stochastic_rounding,
    "guard": adamx.skip_nonfinite,
    "spikes": adamx.skip_spikes,
}


def by_update(tx, gradients, state, params):
    """The step of a transformation that does not say how it steps."""
    return adamx.step(tx._replace(update=tx.update.function), gradients, state, params)


def refusal(take, wrap, arguments, gradients, params, state):
    """The error of a step that is traced, its type and its words."""
    given = [PARAMS if change is None else change(PARAMS) for change in (gradients, params)]
    try:
        tx = wrap(adamx.adamw(**{"learning_rate": 0.1, **arguments}))
        before = tx.init(PARAMS)
        if state is not None:
            before = before._replace(inner=state(before.inner)) if hasattr(before, "inner") else state(before)
        jax.jit(lambda g, p, s: take(tx, g, s, p)).lower(*given, before)
    except (TypeError, ValueError) as error:
        return type(error), str(error)
    return None, "nothing was refused"


@pytest.mark.slow
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_fused_and_composed_refuse_in_the_same_words(wrap):
    for what, (*wrong, words) in REFUSED.items():
        composed = refusal(by_update, wrap, *wrong)
        assert words in composed[1], what
        assert refusal(adamx.step, wrap, *wrong) == composed, what


@pytest.mark.parametrize("value", [1 - 1e-9, jnp.asarray])
def test_with_x64_as_well(x64, value):
    b1 = jnp.asarray(1 - 1e-9) if callable(value) else value
    wrong = ({"b1": b1}, None, None, None)
    composed = refusal(by_update, WRAPPERS["alone"], *wrong)
    assert composed[1].startswith("b1=0.999999999 is 1 in float32")
    assert refusal(adamx.step, WRAPPERS["alone"], *wrong) == composed
