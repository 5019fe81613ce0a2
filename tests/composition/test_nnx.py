"""Flax NNX: states in `nnx.Optimizer` over many updates, and every reader on them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import adamx
from adamx.variables import bare
from tests.family import FAMILY, normal

INT8 = adamx.storage.Int8(min_size=16)
CODECS = {
    "int8": INT8,
    "int4": adamx.storage.Int4(min_size=16),
    "float8": "float8_e4m3fn",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "float32": None,
}
MESH = jax.sharding.Mesh(jax.devices()[:1], ("data",))
DECAYING = functools.partial(adamx.adamw, weight_decay=0.1, mask=adamx.not_matching("bias$"))


class Scale(nnx.Param):
    """A type of one's own."""


class Network(nnx.Module):
    def __init__(self, dtype=jnp.float32, rngs=None):
        rngs = rngs or nnx.Rngs(0)
        self.fc = nnx.Linear(16, 32, rngs=rngs, param_dtype=dtype)
        self.scale = Scale(jnp.ones(32))
        self.out = nnx.Linear(32, 32, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.fc(x)) * self.scale)


X, Y = normal(0, 4, 16), normal(1, 4, 32)
PATHS = ["fc/bias", "fc/kernel", "out/bias", "out/kernel", "scale"]


def loss(model):
    return jnp.mean((model(X) - Y) ** 2)


def probed(rate):
    stages = adamx.scale_by_moments(nu_dtype=INT8), adamx.diagnostics.probe(rate, every=1), adamx.bias_correction()
    return optax.chain(*stages, adamx.scale_by_lr(rate))


WRAPPED = {
    "guard": adamx.skip_nonfinite(adamx.adam(0.01, nu_dtype=INT8), max_consecutive=0),
    "master weights": adamx.with_master_weights(adamx.adamw(0.01, mu_dtype=INT8, nu_dtype=INT8)),
    "guarded master weights": adamx.skip_nonfinite(adamx.with_master_weights(adamx.amsgrad(0.01, nu_dtype=INT8))),
    "stochastic rounding": adamx.with_stochastic_rounding(adamx.adam(0.01, nu_dtype="float16")),
    "averaged": adamx.with_ema(adamx.with_master_weights(adamx.adam(0.01)), 0.9, 2, dtype=INT8),
    "probe": probed(0.01),
    "masters in a group": optax.partition(
        {True: adamx.with_master_weights(adamx.adam(0.01, nu_dtype=INT8)), False: optax.sgd(0.1)}, adamx.match("fc")
    ),
    "mask": optax.masked(adamx.adam(0.01, mu_dtype=INT8, nu_dtype=INT8), adamx.match("kernel$")),
    "scaled": optax.chain(DECAYING(0.01, nu_dtype=INT8), adamx.scale_by_path({"kernel": 0.5})),
    "several steps": optax.MultiSteps(adamx.adam(0.01, nu_dtype=INT8), 2),
    "shards": adamx.shard_state(adamx.adam(0.01, mu_dtype="bfloat16", nu_dtype=INT8), MESH),
    "fused": adamx.adam(0.01, mu_dtype=INT8, nu_dtype=INT8),
}
STORED = {
    f"{name}, {codec}": FAMILY[name].make(0.01, mu_dtype="bfloat16" if "adamax" in name else dtype, nu_dtype=dtype)
    for name in FAMILY
    for codec, dtype in CODECS.items()
    if codec == "int8" or name == "adam"
}
EACH = pytest.mark.parametrize("tx", (WRAPPED | STORED).values(), ids=WRAPPED | STORED)


def dtype_for(tx):
    """Half precision where something is done for it."""
    half = any(WRAPPED[name] is tx for name in WRAPPED if "master" in name or name == "stochastic rounding")
    return jnp.bfloat16 if half else jnp.float32


def trained(tx, steps=3):
    """Flax's own loop, the first update outside of jit and the others inside."""
    model = Network(dtype_for(tx))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    def step(model, optimizer):
        optimizer.update(model, nnx.grad(loss)(model))

    step(model, optimizer)
    compiled = nnx.jit(step)
    for _ in range(steps - 1):
        compiled(model, optimizer)
    return model, optimizer


def by_hand(tx, like, steps=3):
    """The same steps on plain arrays."""
    graph, params = nnx.split(Network(dtype_for(tx)))
    params = bare(params)
    state = tx.init(params)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(lambda p: loss(nnx.merge(graph, p)))(params), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
    return params, state


@pytest.mark.slow
@EACH
def test_it_trains_in_nnx_optimizer_as_it_does_alone(tx):
    model, optimizer = trained(tx)
    params, state = by_hand(tx, model)
    got = bare((nnx.state(model, nnx.Param), optimizer.opt_state))
    assert jax.tree.structure(got[1]) == jax.tree.structure(state)
    for x, y in zip(jax.tree.leaves(got[0]), jax.tree.leaves(params), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x.astype(jnp.float32), y.astype(jnp.float32), rtol=1e-2, atol=1e-4)
    assert [x.dtype for x in jax.tree.leaves(got[1])] == [x.dtype for x in jax.tree.leaves(state)]
    read(tx, optimizer.opt_state, nnx.state(model, nnx.Param))


def read(tx, state, params):
    """Every reader on `optimizer.opt_state`."""
    plain = bare(state)
    assert adamx.interop.check_restored(tx, state, params) is state
    adamx.interop.check_restored(tx, plain, bare(params))
    assert adamx.digest.fingerprint(state) == adamx.digest.fingerprint(plain)
    found = adamx.state_bytes(state)
    assert found == adamx.state_bytes(plain)
    assert set(found.leaves) <= set(PATHS)
    assert found.leaves
    plan = adamx.sharding.state_sharding(tx, params, MESH)
    assert plan.total == found.total
    assert list(plan.leaves) == PATHS
    again = adamx.interop.restore_as(tx, state, params)
    assert jax.tree.structure(again) == jax.tree.structure(jax.eval_shape(tx.init, params))
    if has(state, adamx.precision.MasterWeightsState):
        weights = adamx.master_params(state, params)
        assert jax.tree.structure(weights) == jax.tree.structure(params)
        assert all(w.dtype == jnp.float32 for w in jax.tree.leaves(weights))
    if has(state, adamx.guard.SkipNonfiniteState):
        adamx.check_skips(state)
    if has(state, adamx.diagnostics.ProbeState):
        assert list(adamx.diagnostics.diagnose(state)) == PATHS
        assert adamx.diagnostics.diagnose(state) == adamx.diagnostics.diagnose(plain)


def has(state, kind):
    return any(isinstance(node, kind) for node in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, kind)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["int8", "float16", "float32"])
@pytest.mark.parametrize("half", [False, True], ids=["plain", "master weights"])
@pytest.mark.parametrize("fused", [False, True], ids=["composed", "fused"])
def test_states_of_variables_without_nnx_optimizer(name, half, fused):
    """`nnx.split`, `tx.update` or `adamx.step`, `nnx.merge`: variables are nodes of gradients, state and parameters."""
    tx = adamx.adam(0.01, mu_dtype=CODECS[name], nu_dtype=CODECS[name])
    tx = adamx.with_master_weights(tx) if half else tx
    graph, params = nnx.split(Network(jnp.bfloat16 if half else jnp.float32))
    state, plain = tx.init(params), tx.init(bare(params))
    gradients = jax.grad(lambda p: loss(nnx.merge(graph, p)))(params)
    for update in (tx.update, jax.jit(tx.update)):
        updates, after = update(gradients, state, params)
        want, _ = update(bare(gradients), plain, bare(params))
        assert jax.tree.structure(updates) == jax.tree.structure(params)
        assert jax.tree.structure(after) == jax.tree.structure(state)
        assert all(map(np.array_equal, jax.tree.leaves(updates), jax.tree.leaves(want)))
    for step in (functools.partial(adamx.step, tx), jax.jit(functools.partial(adamx.step, tx))):
        new, after = step(gradients, state, params)
        want, _ = step(bare(gradients), plain, bare(params))
        assert jax.tree.structure((new, after)) == jax.tree.structure((params, state))
        assert all(map(np.array_equal, jax.tree.leaves(new), jax.tree.leaves(want)))


@pytest.mark.slow
def test_a_state_moves_to_another_storage_and_to_optax():
    model, optimizer = trained(adamx.adam(0.01))
    params = nnx.state(model, nnx.Param)
    narrow = nnx.Optimizer(model, adamx.adam(0.01, mu_dtype=INT8, nu_dtype=INT8), wrt=nnx.Param)
    nnx.update(narrow.opt_state, nnx.state(bare(adamx.interop.restore_as(narrow.tx, optimizer.opt_state, params))))
    narrow.update(model, nnx.grad(loss)(model))
    assert int(bare(narrow.opt_state)[0].count) == 4
    assert adamx.digest.fingerprint(
        adamx.interop.from_optax(adamx.interop.to_optax(optimizer.opt_state))
    ) == adamx.digest.fingerprint(optimizer.opt_state)
    of_optax = nnx.Optimizer(model, optax.adam(0.01), wrt=nnx.Param)
    nnx.update(of_optax.opt_state, nnx.state(bare(adamx.interop.to_optax(optimizer.opt_state))))
    of_optax.update(model, nnx.grad(loss)(model))
    with pytest.raises(TypeError, match="MomentsState with quantized moments at 0"):
        adamx.interop.to_optax(narrow.opt_state)


@pytest.mark.slow
def test_skipped_steps_are_seen():
    model, optimizer = trained(WRAPPED["guard"])
    before = jax.tree.map(jnp.copy, bare(nnx.state(model, nnx.Param)))
    optimizer.update(model, jax.tree.map(lambda g: jnp.full_like(g, jnp.nan), nnx.grad(loss)(model)))
    after = bare(nnx.state(model, nnx.Param))
    assert all(map(np.array_equal, jax.tree.leaves(before), jax.tree.leaves(after)))
    with pytest.raises(FloatingPointError, match="of all: 1"):
        adamx.check_skips(optimizer.opt_state)


@pytest.mark.slow
def test_masks_made_from_variables_fit_trees_of_arrays():
    model = Network()
    mask = adamx.match("kernel$")(nnx.state(model, nnx.Param))
    optimizer = nnx.Optimizer(model, optax.masked(adamx.adam(0.1, nu_dtype=INT8), mask), wrt=nnx.Param)
    for _ in range(2):
        optimizer.update(model, nnx.grad(loss)(model))
    assert list(adamx.state_bytes(optimizer.opt_state).leaves) == ["fc/kernel", "out/kernel"]
