"""Groups of parameters: every wrapper inside and outside of `partition` and `masked`, every reader on the result."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from tests.family import normal

INT8 = adamx.storage.Int8(min_size=32)
PARAMS = {
    "body": {"kernel": normal(0, 16, 32), "norm": normal(1, 32)},
    "head": {"kernel": normal(2, 32, 16), "lora": normal(3, 4, 16)},
}
LORA, REST = adamx.match("lora"), adamx.not_matching("lora")
HALF = {True: jnp.bfloat16, False: jnp.float32}
MESH = jax.sharding.Mesh(jax.devices()[:1], ("data",))


def probed(rate, **arguments):
    stages = adamx.scale_by_moments(**arguments), adamx.diagnostics.probe(rate, every=1), adamx.bias_correction()
    return optax.chain(*stages, adamx.scale_by_lr(rate))


INNER = {
    "adam": adamx.adam(0.1),
    "int8": adamx.adam(0.1, mu_dtype=INT8, nu_dtype=INT8),
    "amsgrad": adamx.amsgrad(0.1),
    "ademamix": adamx.ademamix(0.1, nu_dtype="bfloat16", mu_dtype="bfloat16"),
    "fused": adamx.adamw(0.1, weight_decay=0.1, mask=adamx.not_matching("norm", "lora")),
    "probed": probed(0.1),
    "scaled": optax.chain(adamx.adam(0.1), adamx.scale_by_path({"lora": 0.5, "kernel": 2.0})),
}
WRAPPERS = {
    "alone": lambda tx: tx,
    "master weights": adamx.with_master_weights,
    "24-bit master weights": lambda tx: adamx.with_master_weights(tx, bits=24),
    "stochastic rounding": adamx.with_stochastic_rounding,
    "guard": lambda tx: adamx.skip_nonfinite(tx, max_consecutive=0),
    "guarded master weights": lambda tx: adamx.skip_nonfinite(adamx.with_master_weights(tx), max_consecutive=0),
    "shards": lambda tx: adamx.shard_state(tx, MESH),
}


def both(tx):
    """Every leaf by `tx`, in two groups."""
    return optax.partition({True: tx, False: tx}, LORA)


def both_by_prefix(tx):
    return optax.partition({"a": tx, "b": tx}, {"body": "a", "head": "b"})


def both_masked(tx):
    return optax.chain(optax.masked(tx, LORA), optax.masked(tx, REST))


def both_nested(tx):
    """A mask in a group, and a group in a mask."""
    inside = optax.chain(optax.masked(tx, adamx.match("kernel")), optax.masked(tx, adamx.not_matching("kernel")))
    return optax.partition({True: optax.masked(tx, lambda p: jax.tree.map(lambda _: True, p)), False: inside}, LORA)


GROUPS = {"partition": both, "masked": both_masked, "nested": both_nested}
wrappers = pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
# Every wrapper in every arrangement, and around every optimizer in one of them at least.
CELLS = [
    (wrap, inner, list(GROUPS)[(i + j) % len(GROUPS)])
    for i, wrap in enumerate(WRAPPERS)
    for j, inner in enumerate(INNER)
    if (i + 2 * j) % 3 == 0
]


def start(wrap):
    half = wrap not in (WRAPPERS["alone"], WRAPPERS["guard"], WRAPPERS["shards"])
    return jax.tree.map(lambda p, lora: p.astype(HALF[half and lora]), PARAMS, LORA(PARAMS))


def steps(tx, params, count=3):
    step, state = jax.jit(functools.partial(adamx.step, tx)), tx.init(params)
    for t in range(count):
        gradients = jax.tree.map(lambda p, t=t: normal(t, *p.shape, dtype=p.dtype), params)
        params, state = step(gradients, state, params)
    return params, state


def read(tx, state, params):
    """Every reader, each on the whole state."""
    assert adamx.interop.check_restored(tx, state, params) is state
    assert len(adamx.digest.fingerprint(state)) == 64
    found = adamx.state_bytes(state)
    assert found.total == sum(x.nbytes for x in jax.tree.leaves(state))
    assert found.rest <= 400  # counts and what a probe has measured
    plan = adamx.sharding.state_sharding(tx, params, MESH)
    assert plan.total == found.total
    again = adamx.interop.restore_as(tx, state, params)
    assert jax.tree.structure(again) == jax.tree.structure(state)
    masters = has(state, adamx.precision.MasterWeightsState)
    if masters:
        weights = adamx.master_params(state, params)
        assert all(w.dtype == jnp.float32 for w in jax.tree.leaves(weights))
        for w, p in zip(jax.tree.leaves(weights), jax.tree.leaves(params), strict=True):
            np.testing.assert_allclose(w, p.astype(jnp.float32), rtol=2.0**-8)
    if has(state, adamx.guard.SkipNonfiniteState):
        adamx.check_skips(state)
    if has(state, adamx.diagnostics.ProbeState):
        assert sorted(adamx.diagnostics.diagnose(state)) == ["body/kernel", "body/norm", "head/kernel", "head/lora"]
    return found


def has(state, kind):
    return any(isinstance(node, kind) for node in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, kind)))


@pytest.mark.slow
@pytest.mark.parametrize(("wrap", "inner", "group"), CELLS)
def test_groups_step_as_all_leaves_together(wrap, inner, group):
    wrap, inner, group = WRAPPERS[wrap], INNER[inner], GROUPS[group]
    params = start(wrap)
    want, whole = steps(wrap(inner), params)
    for tx in (group(wrap(inner)), wrap(group(inner))):
        got, state = steps(tx, params)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(a.astype(jnp.float32), b.astype(jnp.float32), rtol=2e-6, atol=1e-7)
        found = read(tx, state, got)
        assert found.leaves == read(wrap(inner), whole, want).leaves


@pytest.mark.slow
@pytest.mark.parametrize("wrap", [WRAPPERS["alone"], WRAPPERS["master weights"]], ids=["alone", "master weights"])
def test_groups_by_a_prefix_of_the_tree(wrap):
    params = start(wrap)
    want, _ = steps(wrap(INNER["int8"]), params)
    for tx in (both_by_prefix(wrap(INNER["int8"])), wrap(both_by_prefix(INNER["int8"]))):
        got, state = steps(tx, params)
        assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True))
        read(tx, state, got)


@pytest.mark.slow
@pytest.mark.parametrize("outer", ["partition", "masked"])
@wrappers
def test_adapters_only(wrap, outer):
    params = start(wrap)
    tx = wrap(INNER["int8"])
    if outer == "partition":
        tx = optax.partition({True: tx, False: optax.set_to_zero()}, LORA)
    else:
        tx = optax.chain(optax.masked(tx, LORA), optax.masked(optax.set_to_zero(), REST))
    got, state = steps(tx, params)
    assert set(adamx.state_bytes(state).leaves) == {"head/lora"}
    assert np.array_equal(got["body"]["kernel"], params["body"]["kernel"])
    assert not np.array_equal(got["head"]["lora"], params["head"]["lora"])
    adamx.interop.check_restored(tx, state, params)
    if has(state, adamx.precision.MasterWeightsState):
        weights = adamx.master_params(state, got)
        assert weights["head"]["lora"].dtype == jnp.float32
        assert weights["body"]["norm"] is got["body"]["norm"]


@pytest.mark.slow
def test_masters_of_a_group_and_half_precision_without_them():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    tx = optax.partition({True: adamx.with_master_weights(adamx.adam(0.1)), False: adamx.adam(0.1)}, LORA)
    weights = adamx.master_params(tx.init(params), params)
    assert {str(x.dtype) for x in jax.tree.leaves(weights["body"])} == {"bfloat16"}
    assert weights["head"]["lora"].dtype == jnp.float32


def test_masters_that_do_not_fit():
    params = {"a": jnp.ones(2, jnp.bfloat16)}
    state = adamx.with_master_weights(adamx.adam(0.1)).init(params)
    with pytest.raises(TypeError, match="two MasterWeightsState with the weight of a: pass one of them"):
        adamx.master_params({"old": state, "new": state}, params)
    with pytest.raises(ValueError, match="a master weight for a, which is no leaf of params"):
        adamx.master_params(state, {"b": jnp.ones(2, jnp.bfloat16)})


@pytest.mark.slow
def test_a_guard_counts_for_its_own_group():
    tx = both(adamx.skip_nonfinite(INNER["probed"], max_consecutive=0))
    _, state = steps(tx, PARAMS)
    bad = jax.tree.map(jnp.ones_like, PARAMS)
    bad["head"]["lora"] = bad["head"]["lora"].at[0].set(jnp.nan)
    after, state = adamx.step(tx, bad, state, PARAMS)
    assert {name: m.skipped for name, m in adamx.diagnostics.diagnose(state).items()} == {
        "body/kernel": 0, "body/norm": 0, "head/kernel": 0, "head/lora": 1
    }  # fmt: skip
    assert np.array_equal(after["head"]["lora"], PARAMS["head"]["lora"])
    assert not np.array_equal(after["body"]["norm"], PARAMS["body"]["norm"])
    with pytest.raises(FloatingPointError, match="of all: 1"):
        adamx.check_skips(state)


@pytest.mark.slow
@pytest.mark.parametrize("group", [both, both_by_prefix], ids=["partition", "prefix"])
def test_states_of_optax_in_groups(group):
    ours, theirs = group(adamx.adam(0.1)), group(optax.adam(0.1))
    params, state = steps(ours, PARAMS)
    of_optax = adamx.interop.to_optax(state)
    assert jax.tree.structure(of_optax) == jax.tree.structure(theirs.init(PARAMS))
    assert adamx.digest.fingerprint(adamx.interop.from_optax(of_optax)) == adamx.digest.fingerprint(state)
    narrow = adamx.interop.restore_as(group(INNER["int8"]), of_optax, params)
    adamx.interop.check_restored(group(INNER["int8"]), narrow, params)


@pytest.mark.slow
def test_patterns_of_exclude_may_belong_to_another_group():
    codec = adamx.storage.Int8(min_size=32, exclude=("norm$",))
    tx = both(adamx.adam(0.1, mu_dtype=codec, nu_dtype=codec))
    state = tx.init(PARAMS)
    assert adamx.state_bytes(state).leaves["body/norm"] == (32, 256)
    for make in (adamx.adam, adamx.ademamix, adamx.amsgrad, adamx.adopt, adamx.adam):
        wrong = adamx.storage.Int8(exclude=("nrom$",))
        for group in (lambda tx: tx, both, both_masked, adamx.with_master_weights):
            with pytest.raises(ValueError, match=r"Int8: exclude: no path matches 'nrom\$'\. There are 4, among them"):
                group(make(0.1, mu_dtype=wrong, nu_dtype=wrong)).init(PARAMS)
