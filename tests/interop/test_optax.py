import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.interop import from_optax, to_optax

SCHEDULE = optax.linear_schedule(1e-2, 0.0, 60)
PAIRS = {
    "adam": (adamx.adam, optax.adam, {}),
    "adamw": (adamx.adamw, optax.adamw, {"weight_decay": 0.1}),
    "amsgrad": (adamx.amsgrad, optax.amsgrad, {}),
    "nadam": (adamx.nadam, optax.nadam, {}),
    "adamax": (adamx.adamax, optax.adamax, {}),
    "radam": (adamx.radam, optax.radam, {}),
}
PLACES = {
    "alone": lambda make: make(SCHEDULE),
    "in a chain": lambda make: optax.chain(optax.clip_by_global_norm(1.0), make(1e-2), optax.trace(0.5)),
    "masked": lambda make: optax.masked(make(SCHEDULE), {"w": True, "b": False, "scalar": True}),
    "partitioned": lambda make: optax.partition(
        {"one": make(1e-2), "other": make(SCHEDULE), "no": optax.set_to_zero()},
        {"w": "one", "b": "other", "scalar": "no"},
    ),
    "injected": lambda make: optax.inject_hyperparams(make)(learning_rate=SCHEDULE),
    "accumulated": lambda make: optax.MultiSteps(make(1e-2), 3).gradient_transformation(),
    "named": lambda make: optax.named_chain(("first", make(1e-2)), ("second", optax.scale(0.5))),
}
PARAMS = {"w": jnp.ones((5, 7)), "b": jnp.zeros(3), "scalar": jnp.float32(2.0)}


def gradients(seed, dtype=jnp.float32):
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda p: jnp.asarray(random.standard_normal(p.shape), dtype), PARAMS)


def run(tx, state, params, steps):
    step = jax.jit(tx.update)
    for t in steps:
        updates, state = step(gradients(t, params["w"].dtype), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", PAIRS)
def test_continues_with_equal_bits(name, place):
    ours, theirs, arguments = PAIRS[name]
    ours, theirs = (PLACES[place](functools.partial(make, **arguments)) for make in (ours, theirs))
    expected, expected_state = run(theirs, theirs.init(PARAMS), PARAMS, range(40))

    params, state = run(theirs, theirs.init(PARAMS), PARAMS, range(20))
    state = adamx.interop.check_restored(ours, from_optax(state), params)
    params, state = run(ours, state, params, range(20, 40))
    assert_same((params, to_optax(state)), (expected, expected_state))

    params, state = run(ours, ours.init(PARAMS), PARAMS, range(20))
    assert_same(run(theirs, to_optax(state), params, range(20, 40)), (expected, expected_state))


def test_adabelief():
    state = optax.adabelief(1e-3).init(PARAMS)
    assert type(state[0]) is optax.ScaleByBeliefState
    assert type(from_optax(state)[0]) is adamx.MomentsState


def test_scheduled_weight_decay():
    decay = optax.add_decayed_weights(optax.linear_schedule(1.0, 0.0, 10))
    if decay.init(PARAMS) == optax.EmptyState():
        pytest.skip("this optax has no schedule of the weight decay")
    ours = adamx.add_decayed_weights(optax.linear_schedule(1.0, 0.0, 10))
    state = decay.init(PARAMS)
    adamx.interop.check_restored(ours, from_optax(state), PARAMS)
    assert_same(to_optax(ours.init(PARAMS)), state)


def test_the_arrays_are_the_same_ones():
    tree = {"opt": optax.adam(1e-3).init(PARAMS), "other": [PARAMS, None, 3]}
    converted = from_optax(tree)
    assert converted["opt"][0].mu["w"] is tree["opt"][0].mu["w"]
    assert converted["other"][0]["w"] is PARAMS["w"]
    assert jax.tree.structure(to_optax(converted)) == jax.tree.structure(tree)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adam", "amsgrad"])
def test_complex_parameters(name):
    ours, theirs, _ = PAIRS[name]
    params = jax.tree.map(lambda p: p.astype(jnp.complex64), PARAMS)
    _, state = run(theirs(1e-2), theirs(1e-2).init(params), params, range(3))
    converted = adamx.interop.check_restored(ours(1e-2), from_optax(state), params)
    assert_same(to_optax(converted), state)


WITHOUT_COUNTERPART = {
    "MomentsState with a dithered v at 0": adamx.adam(1e-3, nu_dtype="bfloat16"),
    "MomentsState with quantized moments at 0": adamx.adam(1e-3, nu_dtype="float16"),
    "AmsgradState with a dithered v at 0": adamx.amsgrad(1e-3, nu_dtype="bfloat16"),
    "RunningMaxState at 1": optax.chain(
        adamx.scale_by_moments(), adamx.optimizers.running_max(), adamx.bias_correction()
    ),
    "MasterWeightsState at the tree itself": adamx.with_master_weights(optax.sgd(0.1)),
    "StochasticRoundingState at the tree itself": adamx.with_stochastic_rounding(optax.sgd(0.1)),
    "SkipNonfiniteState at 0": optax.chain(adamx.skip_nonfinite(adamx.adam(1e-3))),
}


@pytest.mark.parametrize("words", WITHOUT_COUNTERPART)
def test_what_optax_has_not_is_named(words):
    with pytest.raises(TypeError, match=f"optax has no state like {words}: "):
        to_optax(WITHOUT_COUNTERPART[words].init(PARAMS))
