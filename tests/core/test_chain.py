"""One chain, two ways to run it: through `adamx.step` each of these makes one pass, and ends where `update` ends."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import adamx
from adamx.core.chain import chain
from tests.backends import composed, differing, jitted, needs_kernel, ulps

PARAMS = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
GRADIENTS = {"w": jnp.array([0.1, -0.3]), "b": jnp.array(0.7)}
SCHEDULE = optax.linear_schedule(0.1, 0.0, 10)

SHAPES = {"dense/kernel": (100, 256), "dense/bias": (20_000,), "norm/scale": (20_001,)}
DECAYS = adamx.not_matching("bias$", "norm/")
INT8 = adamx.storage.Int8(64, 0)
MESH = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))


def tree(seed, dtype="float32"):
    random = np.random.default_rng(seed)
    leaves = {name: jnp.asarray(random.standard_normal(shape), "bfloat16") for name, shape in SHAPES.items()}
    return jax.tree.map(lambda x: x.astype(dtype), leaves)


def clipped(tx, norm=1.0):
    return chain(adamx.clip_by_global_norm(norm), tx)


def adamw(**arguments):
    return adamx.adamw(optax.cosine_decay_schedule(0.01, 9), 0.5, 0.5, weight_decay=0.1, mask=DECAYS, **arguments)


def by_path(tx):
    return chain(tx, adamx.scale_by_path({"dense/": 0.5, "scale$": 2.0}))


TRAINERS = {  # the optimizer, the dtype of its parameters, and how many calls of the kernel its step makes
    "clip, adamw, schedule, mask": (clipped(adamw()), "float32", 1),
    "clip that does not clip": (clipped(adamw(), 1e9), "float32", 1),
    "a factor by path": (by_path(clipped(adamw())), "float32", 1),
    "chains in a chain": (chain(chain(adamx.clip_by_global_norm(1.0)), by_path(adamw())), "float32", 1),
    "optax before": (chain(optax.clip(0.5), optax.trace(0.9), adamw()), "float32", 1),
    "a factor, then optax": (chain(adamx.clip_by_global_norm(1.0), optax.clip(0.001), adamw()), "float32", 1),
    "two clips": (clipped(clipped(adamw(), 0.5)), "float32", 1),
    "stages": (
        chain(adamx.scale_by_adam(0.5, 0.5), adamx.add_decayed_weights(SCHEDULE), adamx.scale_by_lr(0.01)),
        "float32",
        1,
    ),
    "master weights around": (adamx.with_master_weights(clipped(by_path(adamw()))), "bfloat16", 1),
    "master weights inside": (clipped(adamx.with_master_weights(adamw())), "bfloat16", 1),
    "stochastic rounding": (adamx.with_stochastic_rounding(clipped(adamw())), "bfloat16", 1),
    "average": (adamx.with_ema(clipped(adamw()), 0.9), "float32", 1),
    "guard": (adamx.skip_nonfinite(clipped(adamw())), "float32", 1),
    "guard around masters": (adamx.skip_nonfinite(adamx.with_master_weights(clipped(adamw()))), "bfloat16", 1),
    "guard inside": (by_path(clipped(adamx.skip_nonfinite(adamw()))), "float32", 1),
    "spikes": (adamx.skip_spikes(clipped(adamw())), "float32", 1),
    "spikes, guard, masters": (
        adamx.skip_nonfinite(adamx.skip_spikes(adamx.with_master_weights(clipped(adamw())))),
        "bfloat16",
        1,
    ),
    "shards": (adamx.shard_state(clipped(adamw()), MESH), "float32", 1),
    "shards and masters": (adamx.shard_state(adamx.with_master_weights(clipped(adamw())), MESH), "bfloat16", 1),
    "shards, guarded": (adamx.shard_state(adamx.skip_nonfinite(clipped(adamw())), MESH), "float32", 1),
    "precise": (clipped(adamw(precise=True)), "float32", 1),
    "nesterov": (clipped(adamw(nesterov=True)), "float32", 1),
    "nadam": (clipped(adamx.nadam(0.01, 0.5, 0.5)), "float32", 1),
    "bfloat16": (clipped(adamw(mu_dtype="bfloat16", nu_dtype="bfloat16")), "float32", 1),
    "bfloat16 m": (clipped(adamw(mu_dtype="bfloat16")), "float32", 1),
    "int8": (clipped(adamw(mu_dtype=INT8, nu_dtype=INT8)), "float32", 1),
    "int8 v": (clipped(adamw(nu_dtype=INT8)), "float32", 1),
    "mars": (clipped(adamx.mars(0.01, 0.5, 0.5)), "float32", 1),
}


def calls(tx, params):
    """How many calls of the kernel are in the lowered program of a step."""
    text = jitted(tx).lower(params, tx.init(params), params).as_text()
    return text.count("@adamx_step")


@needs_kernel
@pytest.mark.parametrize("name", TRAINERS)
def test_one_pass_is_kept(name):
    tx, dtype, expected = TRAINERS[name]
    assert calls(tx, tree(0, dtype)) == expected
    found = adamx.explain(tx, tree(0, dtype))
    assert found.one_pass
    assert {leaf.executor for leaf in found.leaves} == {"native"}


@pytest.mark.slow
@pytest.mark.parametrize("backend", [pytest.param("auto", marks=needs_kernel), "xla"])
@pytest.mark.parametrize("name", TRAINERS)
def test_it_ends_where_update_and_apply_updates_end(name, backend):
    tx, dtype, _ = TRAINERS[name]
    params = tree(0, dtype)
    state, reference, step = tx.init(params), composed(tx), jitted(tx, backend=backend)
    for t in range(3):
        gradients = tree(t + 1, dtype)
        got, after = step(params, state, gradients)
        expected, state = reference(params, state, gradients)
        assert jax.tree.structure((got, after)) == jax.tree.structure((expected, state))
        for path, p in got.items():
            # In units of the terms of the last sum: the parameter, and an update of the learning rate's size.
            assert ulps(p, expected[path], jnp.maximum(jnp.abs(params[path].astype("float32")), 0.02)) <= 4, path
        numbers = [(x, y) for x, y in zip(*map(jax.tree.leaves, (after, state)), strict=True) if jnp.ndim(x) == 0]
        assert differing(*zip(*numbers, strict=True)) == []
        params = expected


LOOPS = {
    "scan": lambda step: lambda p, s, g: jax.lax.scan(lambda c, _: (step(*c, g), None), (p, s), None, length=1)[0],
    "cond": lambda step: lambda p, s, g: jax.lax.cond(p["norm/scale"][0] < 9, lambda: step(p, s, g), lambda: (p, s)),
    "while": lambda step: lambda p, s, g: jax.lax.fori_loop(0, 1, lambda _, c: step(*c, g), (p, s)),
}


@needs_kernel
@pytest.mark.parametrize("loop", LOOPS)
def test_inside_control_flow(loop):
    tx, params = clipped(adamw()), tree(0)
    step = jax.jit(LOOPS[loop](lambda p, s, g: adamx.step(tx, g, s, p)))
    assert step.lower(params, tx.init(params), params).as_text().count("@adamx_step") == 1
    got, expected = step(params, tx.init(params), params), jitted(tx)(params, tx.init(params), params)
    assert differing(got, expected) == []


@needs_kernel
def test_in_filter_jit_and_nnx_jit():
    tx, params = clipped(adamw()), tree(0)
    expected = jitted(tx)(params, tx.init(params), params)
    for jit in (eqx.filter_jit, nnx.jit):
        step = jit(lambda p, s, g: adamx.step(tx, g, s, p))
        assert differing(step(params, tx.init(params), params), expected) == []


def test_a_gradient_that_is_not_finite_shows():
    tx, params = clipped(adamw()), tree(0)
    gradients = {**params, "dense/bias": params["dense/bias"].at[0].set(jnp.nan)}
    assert not any(bool(jnp.isfinite(p).any()) for p in jitted(tx)(params, tx.init(params), gradients)[0].values())


def test_a_decay_behind_a_guard_acts_where_the_guard_skips():
    tx = chain(adamx.skip_nonfinite(adamx.scale_by_adam()), adamx.add_decayed_weights(0.5), adamx.scale_by_lr(0.5))
    params = {"w": jnp.ones((8, 8))}
    for step in (jitted(tx), composed(tx)):
        got, _ = step(params, tx.init(params), {"w": jnp.full((8, 8), jnp.nan)})
        np.testing.assert_array_equal(got["w"], 0.75)


NONE = "no step in one pass is known for it"
COMPOSED = {
    "a stage behind that needs updates": (chain(adamx.adam(0.1), optax.scale(0.5)), "optax.scale, number 2 in the"),
    "no optimizer of Adam": (chain(adamx.clip_by_global_norm(1.0), optax.sgd(0.1)), NONE),
    "two": (chain(adamx.adam(0.1), adamx.adam(0.1)), "two stages of the chain are optimizers"),
    "another paper": (adamx.amsgrad(0.1), NONE),
    "a guard around one": (adamx.skip_nonfinite(adamx.amsgrad(0.1)), NONE),
    "optax": (optax.adam(0.1), NONE),
}


@pytest.mark.parametrize("name", COMPOSED)
def test_what_has_no_pass_says_why_and_steps_by_update(name):
    tx, why = COMPOSED[name]
    found = adamx.explain(tx, PARAMS)
    assert not found.one_pass
    assert found.why.startswith(why)
    got, expected = (f(tx)(PARAMS, tx.init(PARAMS), GRADIENTS) for f in (jitted, composed))
    assert differing(got, expected) == []


STAGES = adamx.scale_by_adam(), optax.trace(0.9), adamx.scale_by_lr(SCHEDULE)
OWN = chain(*STAGES).init(PARAMS)
WRONG = {
    "dict": (dict(enumerate(OWN)), r"a tuple of 3 states, got dict with the keys \['0', '1', '2'\]"),
    "list": (list(OWN), "a tuple of 3 states, got list of 3"),
    "None": (None, "a tuple of 3 states, got NoneType"),
    "one stage short": (OWN[:2], "a tuple of 3 states, got tuple of 2"),
    "one state too many": ((*OWN, OWN[0]), "a tuple of 3 states, got tuple of 4"),
    "the first state alone": (OWN[0], "a tuple of 3 states, got MomentsState"),
    "optax.adamw": (optax.adamw(SCHEDULE).init(PARAMS), "MomentsState, got ScaleByAdamState"),
    "rmsprop": (optax.rmsprop(0.1, momentum=0.9).init(PARAMS), "MomentsState, got ScaleByRmsState"),
}


@pytest.mark.parametrize(("state", "came"), WRONG.values(), ids=WRONG)
def test_a_state_of_another_kind_is_told_how_to_restore(state, came):
    with pytest.raises(TypeError, match=rf"expected .*{came}.*tx\.init\(params\) as its template"):
        chain(*STAGES).update(GRADIENTS, state, PARAMS)


def test_swapped_arguments_are_told_their_order():
    tx = chain(*STAGES)
    with pytest.raises(TypeError, match=r"got dict with the keys \['b', 'w'\].*update\(gradients, state, params\)"):
        tx.update(tx.init(PARAMS), GRADIENTS, PARAMS)


CONSTANT_AND_SCHEDULED = {
    "adam": (adamx.adam(0.1), adamx.adam(SCHEDULE)),
    "adamw": (adamx.adamw(0.1), adamx.adamw(SCHEDULE)),
    "weight decay": (adamx.adamw(0.1), adamx.adamw(0.1, weight_decay=SCHEDULE)),
}


@pytest.mark.parametrize(("constant", "scheduled"), CONSTANT_AND_SCHEDULED.values(), ids=CONSTANT_AND_SCHEDULED)
def test_the_state_of_a_constant_is_not_that_of_a_schedule(constant, scheduled):
    for tx, other in [(constant, scheduled), (scheduled, constant)]:
        with pytest.raises(TypeError, match=r"expected .*tx\.init\(params\) as its template"):
            tx.update(GRADIENTS, other.init(PARAMS), PARAMS)
