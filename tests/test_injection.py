import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from tests.backends import composed, jitted, needs_kernel

SHAPES = {"dense/kernel": (100, 256), "dense/bias": (20_000,)}
MASK = adamx.not_matching("bias$")
INT8 = dict.fromkeys(("mu_dtype", "nu_dtype"), adamx.storage.Int8(64, 0))


def tree(seed, dtype="float32"):
    random = np.random.default_rng(seed)
    return {name: jnp.asarray(random.standard_normal(shape), dtype) for name, shape in SHAPES.items()}


def clipped(learning_rate, weight_decay=0.1, norm=1.0):
    """An optimizer of one's own, all of whose numbers can be injected."""
    optimizer = adamx.adamw(learning_rate, 0.5, 0.5, weight_decay=weight_decay, mask=MASK)
    return adamx.chain(adamx.clip_by_global_norm(norm), optimizer)


FACTORIES = {
    "adamw": functools.partial(adamx.adamw, mask=MASK),
    "int8": functools.partial(adamx.adamw, **INT8),
    "nadam": adamx.nadam,
    "a chain": clipped,
    "optax": optax.adamw,
}


def run(step, tx, params, changes, dtype="float32"):
    state = tx.init(params)
    for t, (rate, gradients) in enumerate(zip(changes, (tree(s, dtype) for s in range(1, 9)), strict=False)):
        state.hyperparams["learning_rate"] = jnp.float32(rate)
        params, state = step(params, state, gradients)
        assert int(state.count) == t + 1
    return params, state


@pytest.mark.parametrize("name", FACTORIES)
def test_equals_that_of_optax_step_by_step(name):
    ours = adamx.inject_hyperparams(FACTORIES[name])(0.1)
    theirs = optax.inject_hyperparams(FACTORIES[name], "mask" if name == "adamw" else ())(0.1)
    rates = (0.1, 0.2, 0.05)
    expected, state = run(composed(theirs), theirs, tree(0), rates)
    for way in (composed, jitted):
        moved, found = run(way(ours), ours, tree(0), rates)
        assert jax.tree.structure(found) == jax.tree.structure(state)
        if way is composed:
            jax.tree.map(np.testing.assert_array_equal, moved, expected)
        else:
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-6, atol=1e-7), moved, expected)


@needs_kernel
@pytest.mark.parametrize("name", sorted(FACTORIES.keys() - {"optax"}))
def test_the_pass_is_kept_and_no_change_compiles_anything(name):
    tx, params = adamx.inject_hyperparams(FACTORIES[name])(0.1), tree(0)
    step, state = jitted(tx), tx.init(params)
    assert step.lower(params, state, params).as_text().count("@adamx_step") == 1
    assert adamx.explain(tx, params).one_pass
    params, state = step(params, state, params)
    step(params, state, params)
    for number, value in (("learning_rate", 0.01), ("weight_decay", 0.0), ("b1", 0.5), ("norm", 0.1)):
        if number in state.hyperparams:
            state.hyperparams[number] = jnp.float32(value)
            params, state = step(params, state, params)
    assert step._cache_size() == 1


def test_numbers_keep_their_digits_whatever_the_parameters_are():
    params = tree(0, "bfloat16")
    tx = adamx.inject_hyperparams(adamx.adamw)(1e-3)
    state = tx.init(params)
    assert {x.dtype for x in state.hyperparams.values()} == {jnp.dtype("float32")}
    assert float(state.hyperparams["b2"]) == np.float32(0.999)
    with pytest.raises(ValueError, match=r"b2 has dtype bfloat16.*or use adamx\.inject_hyperparams"):
        optax.inject_hyperparams(adamx.adamw)(1e-3).init(params)


@pytest.mark.slow
def test_masks_and_other_functions_are_taken_for_what_they_are():
    params = tree(0)
    masks = MASK, lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree)
    zeros = jax.tree.map(jnp.zeros_like, params)
    for mask in masks:
        tx = adamx.inject_hyperparams(adamx.adamw)(0.1, weight_decay=0.5, mask=mask)
        for way in (composed, jitted):
            moved, _ = way(tx)(params, tx.init(params), zeros)
            np.testing.assert_allclose(moved["dense/kernel"], 0.95 * params["dense/kernel"], rtol=1e-6)
            np.testing.assert_array_equal(moved["dense/bias"], params["dense/bias"])
    tx = adamx.inject_hyperparams(adamx.adopt)(0.1, clip_value_fn=lambda count: 1.0)
    assert "clip_value_fn" not in tx.init(params).hyperparams


@pytest.mark.slow
def test_schedules_are_evaluated_in_each_step():
    schedule = optax.linear_schedule(0.1, 0.0, 4)
    injected = adamx.inject_hyperparams(adamx.adamw)(schedule, weight_decay=lambda count: 0.1 * count, mask=MASK)
    plain = adamx.adamw(schedule, weight_decay=lambda count: 0.1 * count, mask=MASK)
    params = other = tree(0)
    state, theirs = injected.init(params), plain.init(params)
    for t in range(4):
        params, state = jitted(injected)(params, state, tree(t + 1))
        other, theirs = jitted(plain)(other, theirs, tree(t + 1))
        np.testing.assert_allclose(state.hyperparams["learning_rate"], schedule(t), rtol=1e-6)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), params, other)


WRAPPED = {
    "guard": adamx.skip_nonfinite,
    "masters": adamx.with_master_weights,
    "dither": adamx.with_stochastic_rounding,
    "accumulation": lambda tx: adamx.accumulate(tx, 2),
    "shards": lambda tx: adamx.shard_state(tx, jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRAPPED)
def test_inside_a_wrapper(name):
    tx, params = WRAPPED[name](adamx.inject_hyperparams(clipped)(0.1)), tree(0, "bfloat16")
    ways = []
    for way in (composed, jitted):
        moved, state = params, tx.init(params)
        for t in range(4):
            moved, state = way(tx)(moved, state, tree(t + 1))
        ways.append(moved)
    near = functools.partial(np.testing.assert_allclose, rtol=0.02, atol=0.02)
    jax.tree.map(lambda x, y: near(np.asarray(x, np.float32), np.asarray(y, np.float32)), *ways)
    adamx.interop.check_restored(tx, state, params)


def test_a_factory_may_take_any_arguments():
    def factory(rate, *others, **storage):
        return adamx.adam(rate, *others, **storage)

    tx = adamx.inject_hyperparams(factory)(0.1, 0.8, **INT8)
    state = tx.init(tree(0))
    assert list(state.hyperparams) == ["rate"]
    assert state.inner_state[0].mu["dense/kernel"].codes.dtype == jnp.int8
    assert jitted(tx)(tree(0), state, tree(1))[1].inner_state[0].count == 1


def test_a_scan_carries_it():
    tx, params = adamx.inject_hyperparams(adamx.adamw)(0.1), tree(0)
    step = jitted(tx)
    (moved, state), _ = jax.lax.scan(lambda c, _: (step(*c, params), None), (params, tx.init(params)), length=3)
    assert int(state.count) == 3
    assert float(moved["dense/bias"][0]) != float(params["dense/bias"][0])


def test_float64(x64):
    tx = adamx.inject_hyperparams(adamx.adam)(0.1)
    assert tx.init({"w": jnp.ones(2)}).hyperparams["b2"].dtype == jnp.float64


def test_wrong_arguments_are_told_when_it_is_made():
    with pytest.raises(ValueError, match=r"b1 must be in \[0, 1\), got 2"):
        adamx.inject_hyperparams(adamx.adam)(0.1, b1=2)
    with pytest.raises(ValueError, match="static_args"):
        adamx.inject_hyperparams(adamx.adam, "beta")(0.1)
    with pytest.raises(TypeError, match="lr"):
        adamx.inject_hyperparams(adamx.adam)(lr=0.1)
