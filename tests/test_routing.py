import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from tests.backends import composed, jitted, needs_kernel

SHAPES = {"body": {"kernel": (64, 256), "bias": (20_000,)}, "head": {"kernel": (256, 8)}, "lora": (256, 64)}
INT8 = dict.fromkeys(("mu_dtype", "nu_dtype"), adamx.storage.Int8(64, 0))
MESH = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
GROUPS = {"bias$": adamx.adamw(0.01, 0.5, 0.5), "^lora": None, "^head": optax.sgd(0.1)}
REST = adamx.adamw(optax.linear_schedule(0.1, 0.0, 9), 0.5, 0.5, weight_decay=0.1)


def tree(seed, dtype="float32"):
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(random.standard_normal(shape), dtype), SHAPES, is_leaf=lambda x: isinstance(x, tuple)
    )


def run(step, tx, params, steps=3):
    state = tx.init(params)
    for t in range(steps):
        params, state = step(params, state, tree(t + 1, params["lora"].dtype))
    return params, state


def near(x, y, rtol=2e-6, atol=1e-6):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(np.asarray(a, np.float32), np.asarray(b, np.float32), rtol, atol), x, y
    )


def test_equals_a_partition_of_optax():
    def labels(tree):
        return {"body": {"kernel": "default", "bias": "bias$"}, "head": {"kernel": "^head"}, "lora": "^lora"}

    theirs = optax.partition({**GROUPS, "^lora": optax.set_to_zero(), "default": REST}, labels)
    ours = adamx.route(GROUPS, default=REST)
    expected, state = run(composed(theirs), theirs, tree(0))
    moved, found = run(composed(ours), ours, tree(0))
    assert jax.tree.structure(found) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, (moved, found), (expected, state))
    near(run(jitted(ours), ours, tree(0))[0], expected)


WRAPPED = {  # around, and the dtype of the parameters
    "alone": (lambda tx: tx, "float32"),
    "clip": (lambda tx: adamx.chain(adamx.clip_by_global_norm(1.0), tx), "float32"),
    "behind": (lambda tx: adamx.chain(tx, adamx.scale_by_path({"kernel$": 0.5})), "float32"),
    "guard": (adamx.skip_nonfinite, "float32"),
    "masters": (adamx.with_master_weights, "bfloat16"),
    "dither": (adamx.with_stochastic_rounding, "bfloat16"),
    "accumulation": (lambda tx: adamx.accumulate(tx, 2), "float32"),
    "shards": (lambda tx: adamx.shard_state(tx, MESH), "float32"),
    "route": (lambda tx: adamx.route({"^body|^head|^lora": tx}), "float32"),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_step_is_update_and_apply_updates(name):
    around, dtype = WRAPPED[name]
    tx = around(adamx.route(GROUPS, default=REST))
    expected, state = run(composed(tx), tx, tree(0, dtype))
    moved, found = run(jitted(tx), tx, tree(0, dtype))
    assert jax.tree.structure(found) == jax.tree.structure(state)
    near(moved, expected, *((2e-6, 1e-6) if dtype == "float32" else (0.01, 0.01)))
    np.testing.assert_array_equal(moved["lora"], tree(0, dtype)["lora"])
    adamx.interop.check_restored(tx, found, tree(0, dtype))


@needs_kernel
@pytest.mark.parametrize("name", sorted(WRAPPED))
def test_each_group_keeps_its_pass(name):
    around, dtype = WRAPPED[name]
    groups = {"bias$": adamx.adamw(0.01), "^lora": None, "^head": adamx.nadam(0.1)}
    tx, params = around(adamx.route(groups, default=REST)), tree(0, dtype)
    step = jitted(tx)
    assert step.lower(params, tx.init(params), params).as_text().count("@adamx_step") == (
        2 if dtype == "float32" else 3
    )  # the head is small
    assert adamx.explain(tx, params).one_pass


@needs_kernel
def test_explain_tells_leaf_by_leaf():
    params = tree(0)
    found = adamx.explain(adamx.route(GROUPS, default=REST), params)
    executors = {leaf.path: leaf.executor for leaf in found.leaves}
    assert executors == {"body/kernel": "native", "body/bias": "native", "head/kernel": "composed", "lora": "none"}
    assert not found.one_pass
    assert found.why == "the optimizer of '^head' has no step of one pass"
    assert {leaf.why for leaf in found.leaves if leaf.executor == "none"} == {"frozen"}


def test_groups_have_storages_of_their_own_and_frozen_ones_have_none():
    tx, params = adamx.route({"^body": adamx.adam(0.1, **INT8), "^lora": None}, default=adamx.adam(0.1)), tree(0)
    moved, state = run(jitted(tx), tx, params)
    assert state.inner_states["^body"].inner_state[0].mu["body"]["kernel"].codes.dtype == jnp.int8
    assert state.inner_states["default"].inner_state[0].mu["head"]["kernel"].dtype == jnp.float32
    assert not jax.tree.leaves(state.inner_states["^lora"])
    assert moved["lora"] is not None
    sizes = adamx.state_bytes(state)
    assert sizes.leaves.keys() == {"body/kernel", "body/bias", "head/kernel"}


def test_a_frozen_rest():
    tx, params = adamx.route({"^lora": adamx.adam(0.1)}, default=None), tree(0)
    moved, state = run(jitted(tx), tx, params)
    jax.tree.map(np.testing.assert_array_equal, {**moved, "lora": 0}, {**params, "lora": 0})
    assert len(jax.tree.leaves(state)) == 3  # count, m and v


def test_hyperparameters_of_groups_can_be_injected():
    def trainer(fast, slow):
        return adamx.route({"^lora": adamx.adam(fast)}, default=adamx.adam(slow))

    tx, params = adamx.inject_hyperparams(trainer)(0.5, 0.0), tree(0)
    moved, _ = run(jitted(tx), tx, params, 1)
    np.testing.assert_array_equal(moved["head"]["kernel"], params["head"]["kernel"])
    np.testing.assert_allclose(np.abs(moved["lora"] - params["lora"]), 0.5, rtol=1e-4)


WRONG = {
    "no path": ({"attention": None}, ValueError, "route: no path matches 'attention'. There are 4, among them"),
    "two": ({"^body": None, "kernel$": None}, ValueError, "'^body' and 'kernel$' are both found in 'body/kernel'"),
    "an expression": ({"(": None}, ValueError, "route: '(' is not a regular expression"),
    "no string": ({3: None}, TypeError, "route takes regular expressions, got 3"),
    "no optimizer": ({"^body": 0.1}, TypeError, "expected an optimizer or None for '^body', got 0.1"),
    "nothing": ({}, ValueError, "route needs at least one pattern"),
    "the rest": ({"default": None}, ValueError, "write it as '(default)'"),
}


@pytest.mark.parametrize(("groups", "error", "words"), WRONG.values(), ids=WRONG)
def test_wrong_groups_are_told(groups, error, words):
    with pytest.raises(error) as found:
        adamx.route(groups, default=REST).init(tree(0))
    assert words in str(found.value)


def test_what_no_pattern_is_found_in_is_told():
    with pytest.raises(ValueError, match="no pattern is found in 'body/bias': give default= an"):
        adamx.route({"kernel$": REST, "^lora": None}).init(tree(0))


def test_another_state_is_told():
    tx, params = adamx.route(GROUPS, default=REST), tree(0)
    with pytest.raises(TypeError, match="expected the state that init returned, PartitionState of"):
        tx.update(params, adamx.adam(0.1).init(params), params)


def test_none_leaves_and_single_arrays():
    tx = adamx.route({"^a": adamx.adam(0.1)}, default=None)
    params = {"a": jnp.ones(2), "b": None, "c": jnp.ones(3)}
    moved, _ = jitted(tx)(params, tx.init(params), params)
    np.testing.assert_allclose(moved["a"], 0.9, rtol=1e-6)
    assert moved["b"] is None
