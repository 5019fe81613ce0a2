"""What an optimizer of optax's name takes and says, beyond its numbers: signatures, annotations, leaves, dtypes."""

import inspect
import types
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import adamx
from tests.family import FAMILY, each, made, normal

OURS = types.SimpleNamespace(**vars(adamx.optimizers) | vars(adamx))
TWINS = {
    name: (getattr(OURS, name), twin)
    for module in (optax.contrib, optax)
    for name, twin in vars(module).items()
    if inspect.isfunction(twin) and callable(getattr(OURS, name, None))
}
SCHEDULED = ("learning_rate", "weight_decay", "b3", "alpha")
INTEGERS = {"counts": jnp.arange(3), "flags": jnp.ones(2, bool), "numpy": np.arange(4, dtype=np.uint8), "number": 3}
MIXED = {"w": normal(0, 3, 32), **INTEGERS}
CODES = adamx.storage.Int8(min_size=0, block_size=16)
STORAGES = {"float32": {}, "bfloat16": {"mu_dtype": "bfloat16", "nu_dtype": "bfloat16"}}
STORAGES["int8"] = {"mu_dtype": CODES, "nu_dtype": CODES}
WRAPPERS = {
    "bare": lambda tx: tx,
    "master weights": adamx.with_master_weights,
    "stochastic rounding": adamx.with_stochastic_rounding,
    "guard": adamx.skip_nonfinite,
    "spikes": adamx.skip_spikes,
    "chain": lambda tx: optax.chain(optax.clip_by_global_norm(1.0), tx),
    "partition": lambda tx: optax.partition({"all": tx}, lambda p: jax.tree.map(lambda _: "all", p)),
}


@pytest.mark.parametrize("pair", TWINS.values(), ids=TWINS)
def test_the_parameters_are_those_of_optax_in_name_order_kind_and_default(pair):
    ours, theirs = ({p.name: p for p in inspect.signature(f).parameters.values()} for f in pair)
    assert [name for name in ours if name in theirs] == list(theirs)
    for name, parameter in theirs.items():
        assert ours[name].kind == parameter.kind
        if name != "clip_value_fn":  # a function by default: None here
            assert ours[name].default == parameter.default
    positional = [name for name, p in theirs.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert list(ours)[: len(positional)] == positional


@each
def test_a_number_or_schedule_is_annotated_as_in_optax_and_the_hints_resolve(entry):
    signature, hints = inspect.signature(entry.make), typing.get_type_hints(getattr(entry.make, "func", entry.make))
    for name in SCHEDULED:
        if name in signature.parameters:
            expected = {hints[name], signature.parameters[name].annotation}
            assert expected == {optax.ScalarOrSchedule} or (name == "alpha" and entry.make is not adamx.ademamix)


@pytest.mark.parametrize("make", [adamx.scale_by_lr, adamx.add_decayed_weights, adamx.adamw, adamx.diagnostics.probe])
def test_stages_are_annotated_so_too(make):
    hints = typing.get_type_hints(make)
    assert hints[next(iter(hints))] in (optax.ScalarOrSchedule, optax.ScalarOrSchedule | None)


@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
@each
def test_init_takes_integer_leaves_and_the_first_update_names_them(entry, storage):
    tx = made(entry, storage)
    state = tx.init(MIXED)
    assert jax.tree.structure(jax.eval_shape(tx.init, MIXED)) == jax.tree.structure(state)
    for tree in (s.mu for s in jax.tree.leaves(state, is_leaf=lambda s: hasattr(s, "mu")) if hasattr(s, "mu")):
        for name, p in INTEGERS.items():
            assert not np.any(tree[name])
            assert (tree[name].shape, tree[name].dtype) == (jnp.shape(p), jnp.result_type(p))
    no_gradient = {k: np.zeros(np.shape(p), jax.dtypes.float0) for k, p in INTEGERS.items()}
    floats = {k: jnp.zeros(np.shape(p)) for k, p in INTEGERS.items()}
    for gradients in (MIXED, {**MIXED, **no_gradient}, {**MIXED, **floats}):
        for update in (tx.update, lambda *a: adamx.step(tx, *a)):
            with pytest.raises(TypeError, match=r"at counts must be an array of .*floating numbers, got dtype"):
                update(gradients, state, MIXED)


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_every_wrapper_inits_integer_leaves_and_refuses_them_in_update(wrap):
    tx = wrap(adamx.adamw(0.1))
    state = tx.init(MIXED)
    assert len({id(x) for x in jax.tree.leaves(state)}) == len(jax.tree.leaves(state))  # may be donated
    assert adamx.state_bytes(state).total > 0
    with pytest.raises(TypeError, match=r"(gradient|parameter|update|mu) at counts must be"):
        adamx.step(tx, {**MIXED, **{k: jnp.zeros(np.shape(p)) for k, p in INTEGERS.items()}}, state, MIXED)


def test_integer_leaves_of_a_masked_optimizer_train_the_rest():
    tx = optax.masked(adamx.adam(0.5), {"w": True, "n": False})
    params, gradients = {"w": jnp.ones(2), "n": jnp.arange(2)}, {"w": jnp.ones(2), "n": jnp.zeros(2, int)}
    moved, _ = adamx.step(tx, gradients, tx.init(params), params)
    np.testing.assert_allclose(moved["w"], 0.5, rtol=1e-4)
    np.testing.assert_array_equal(moved["n"], [0, 1])


@pytest.mark.parametrize("name", [name for name, e in FAMILY.items() if not e.no_complex])
def test_a_complex_mu_dtype_stores_complex_moments(name):
    params = {"complex": jnp.ones(2, jnp.complex64), "real": jnp.ones(2)}
    mu_dtype = {"mu_dtype": jnp.complex64}
    state = FAMILY[name].make(0.1, **mu_dtype).init(params)
    plain = FAMILY[name].make(0.1).init(params)
    assert [x.dtype for x in jax.tree.leaves(state)] == [x.dtype for x in jax.tree.leaves(plain)]


def test_a_complex_nu_dtype_is_refused_and_complex128_needs_x64():
    with pytest.raises(TypeError, match=r"nu_dtype .*real"):
        adamx.adam(0.1, nu_dtype=jnp.complex64)
    with pytest.raises(ValueError, match="mu_dtype is complex128"):
        adamx.adam(0.1, mu_dtype=jnp.complex128)
