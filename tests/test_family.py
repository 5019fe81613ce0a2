"""What holds for every optimizer of the family: each test runs on each line of `family.py`."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from tests.family import FAMILY, ULP, each, normal

HALF = [jnp.bfloat16, jnp.float16]
DTYPES = [jnp.float32, *HALF]
LARGEST = float(np.finfo(np.float32).max)

each_of_optax = pytest.mark.parametrize("entry", [pytest.param(e, id=k) for k, e in FAMILY.items() if e.peer])


def types(tree):
    return [(jax.tree_util.keystr(k), x.shape, x.dtype, x.weak_type) for k, x in jax.tree.leaves_with_path(tree)]


def scanned(tx, gradients, params):
    """All updates and states of a compiled loop over gradients whose first axis is the step."""

    def step(state, g):
        updates, state = tx.update(g, state, params)
        return state, (updates, state)

    return jax.jit(lambda s, g: jax.lax.scan(step, s, g)[1])(tx.init(params), gradients)


def trajectory(tx, gradients, params, update=None):
    """All updates, one call of `update` after the other."""
    state, found, update = tx.init(params), [], update or tx.update
    for g in gradients:
        u, state = update(g, state, params)
        found.append(u)
    return jax.tree.map(lambda *us: jnp.stack(us), *found)


def states(state):
    """The states of an optimizer that have fields, whatever they are nested in."""
    if hasattr(state, "_fields"):
        return [state, *(s for field in state for s in states(field))]
    return [s for part in state for s in states(part)] if isinstance(state, tuple) else []


@each_of_optax
def test_the_arguments_are_those_of_optax(entry):
    ours, theirs = (inspect.signature(f).parameters for f in (entry.make, getattr(optax, entry.peer)))
    positional = [p for p in theirs.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    found = list(ours.values())[: len(positional)]
    assert [(p.name, p.default) for p in found] == [(p.name, p.default) for p in positional]


@each_of_optax
def test_the_state_has_the_fields_of_optax(entry):
    ours, theirs = (f(lambda count: 0.1).init(jnp.zeros(3)) for f in (entry.make, getattr(optax, entry.peer)))
    assert jax.tree.structure(jax.tree.leaves(ours)) == jax.tree.structure(jax.tree.leaves(theirs))
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(ours)]
    assert names == [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(theirs)]


@each
def test_types_never_move_and_it_compiles_once(entry):
    pairs = {f"{p.__name__} {g.__name__}": (jnp.ones(2, p), jnp.ones(2, g)) for p in DTYPES for g in DTYPES}
    params, gradients = ({k: pair[i] for k, pair in pairs.items()} for i in (0, 1))
    tx = entry.make(optax.linear_schedule(0.1, 0.0, 9))
    state = first = tx.init(params)
    step = jax.jit(tx.update)
    for _ in range(2):
        updates, state = step(gradients, state, params)
        assert types(state) == types(first) == types(jax.eval_shape(tx.init, params))
        assert all(updates[k].dtype == gradients[k].dtype for k in pairs)
    assert step._cache_size() == 1
    jax.eval_shape(lambda: jax.lax.scan(lambda s, _: (tx.update(gradients, s, params)[1], None), first, length=2))


@each
def test_types_never_move_with_x64(entry, x64):
    wide = [jnp.float64, jnp.float32, jnp.bfloat16]
    pairs = {f"{p.__name__} {g.__name__}": (jnp.ones(2, p), jnp.ones(2, g)) for p in wide for g in wide}
    params, gradients = ({k: pair[i] for k, pair in pairs.items()} for i in (0, 1))
    tx = entry.make(0.1)
    updates, state = jax.eval_shape(tx.update, gradients, tx.init(params), params)
    assert types(state) == types(tx.init(params))
    assert all(updates[k].dtype == gradients[k].dtype for k in pairs)


@each
def test_unusual_trees(entry):
    tx = entry.make(0.1)
    for tree in ({}, 2.0, {"a": None, "b": (None, 0.5), "c": np.zeros((0, 3)), "d": np.zeros((3, 0)), "e": {}}):
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)
        updates, state = tx.update(params, tx.init(params), params)
        assert types(state) == types(tx.init(params))
        assert jax.tree.structure(updates) == jax.tree.structure(params)
        assert all(np.isfinite(u).all() for u in jax.tree.leaves(updates))


@each
def test_wrong_trees_are_told_the_path_of_the_leaf(entry):
    params = {"layer": {"bias": jnp.ones(2), "kernel": jnp.ones((2, 3))}}
    bias = lambda value: {"layer": {"bias": value, "kernel": params["layer"]["kernel"]}}
    tx = entry.make(0.1)
    state = tx.init(params)
    for wrong, error in [
        (bias(jnp.ones(1)), r"layer/bias has shape \(1,\), .*\(2,\)"),
        ({"layer": {"kernel": params["layer"]["kernel"]}}, "missing layer/bias"),
        (bias(None), "layer/bias"),
        (bias(jnp.ones(2, int)), "layer/bias .*int32"),
        (bias(jnp.ones(2, jnp.complex64)), "layer/bias .*complex64"),
    ]:
        with pytest.raises((ValueError, TypeError), match=error):
            jax.eval_shape(tx.update, wrong, state, params)


@each
def test_a_state_of_another_kind_is_refused(entry):
    tx, params = entry.make(0.1), {"w": jnp.ones(2)}
    for wrong in (params, tx.init(params)[0], (optax.trace(0.9).init(params), *tx.init(params)[1:])):
        with pytest.raises(TypeError, match=r"expected .*tx\.init\(params\) as its template"):
            tx.update(params, wrong, params)


@each
def test_half_precision_follows_float64(entry, x64):
    # Rounding an update to the gradient's dtype is half a unit, eps/2; averages in float32 add 1e-5. Where m nearly
    # cancels, the error is of the size of its terms.
    half = {d.__name__: normal(7, 60, 8, dtype=d) for d in HALF}
    gradients = {"half": half, "exact": optax.tree.cast(half, jnp.float64)}
    updates, _ = scanned(entry.make(1.0), gradients, jax.tree.map(lambda g: jnp.zeros_like(g[0]), gradients))
    for name, u in updates["half"].items():
        rtol = float(jnp.finfo(u.dtype).eps) / 2 + 1e-4
        np.testing.assert_allclose(u.astype(jnp.float64), updates["exact"][name], rtol=rtol, atol=1e-4)


SPIKES = {f"{spike:g} at {t}": (spike, t) for spike in (1e20, -1e30, LARGEST) for t in (0, 4)}


@each
def test_huge_finite_gradients_leave_a_finite_state_that_falls_again(entry):
    ones = np.ones((120, 2), np.float32)
    gradients = {name: np.where(np.arange(120)[:, None] == t, spike, ones) for name, (spike, t) in SPIKES.items()}
    gradients["always"] = LARGEST * ones
    gradients = jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), gradients)
    updates, path = scanned(entry.make(1.0), gradients, jax.tree.map(lambda g: g[0] * 0, gradients))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((updates, path)))
    for state in states(path):
        for name in {"mu", "nu", "nu_max"} & set(state._fields):
            for leaf, (_, t) in SPIKES.items():
                size = np.abs(getattr(state, name)[leaf])
                assert (size[-1] < size[t] * 0.99).all() or name in entry.never_falls, (name, leaf)
    if not entry.unbounded:  # |m| is held at 2^65 and v at 2^128: 2, and m̂ of the first step is ten times m
        assert max(np.abs(u).max() for u in jax.tree.leaves(updates)) < 2 / 0.1 * 1.001


@each
def test_zero_gradients_give_exactly_zero(entry):
    zeros = {d.__name__: jnp.zeros((4, 3), d) for d in DTYPES}
    updates, _ = scanned(entry.make(0.1), zeros, jax.tree.map(lambda g: g[0], zeros))
    for u in jax.tree.leaves(updates):
        np.testing.assert_array_equal(u.astype(jnp.float32), 0.0)


@each
def test_the_gradient_of_the_update_at_zero_is_finite(entry):
    tx, params = entry.make(1.0), jnp.zeros(3)

    def second(g):
        _, state = tx.update(g, tx.init(params), params)
        return tx.update(g, state, params)[0]

    jacobian = jax.jit(jax.jacobian(second))(jnp.asarray([0.0, 0.0, 1.0]))
    assert np.isfinite(jacobian).all()
    assert np.diag(jacobian)[0] < 0


@pytest.mark.slow
@each
def test_compiled_is_op_by_op_to_a_few_ulp(entry):
    # The compiler contracts a product and a sum into one rounding, and takes b**t otherwise: 7e-6 of 1 - b2**t.
    g, tx = normal(3, 8, 16), entry.make(1.0)
    compiled = trajectory(tx, g, jnp.zeros(16), jax.jit(tx.update))
    np.testing.assert_allclose(trajectory(tx, g, jnp.zeros(16)), compiled, rtol=entry.op_by_op, atol=16 * ULP)


@each
def test_complex_parameters_turn_with_the_gradient_or_are_refused(entry):
    g = normal(5, 6, 4) + 1j * normal(6, 6, 4)
    gradients = {"straight": g, "turned": 1j * g, "real": g.real, "embedded": g.real.astype(jnp.complex64)}
    params = jax.tree.map(lambda g: jnp.zeros_like(g[0]), gradients)
    if entry.no_complex:
        with pytest.raises(TypeError, match=entry.no_complex):
            scanned(entry.make(0.1), gradients, params)
        return
    u, _ = scanned(entry.make(1.0), gradients, params)
    assert u["straight"].dtype == jnp.complex64
    np.testing.assert_allclose(u["turned"], 1j * u["straight"], rtol=16 * ULP)
    np.testing.assert_allclose(u["embedded"].real, u["real"], rtol=16 * ULP, atol=16 * ULP)


WRONG = {
    "learning_rate": -1.0,
    "b1": 1.0,
    "b2": 1.0,
    "eps": -1e-8,
    "eps_root": float("inf"),
    "mu_dtype": "int8",
    "nu_dtype": "int8",
    "precise": "no",
}


@each
def test_wrong_hyperparameters_are_named_with_their_value(entry):
    accepted = inspect.signature(entry.make).parameters
    for name, value in ({k: v for k, v in WRONG.items() if k in accepted} | entry.wrong).items():
        with pytest.raises((ValueError, TypeError)) as caught:
            entry.make(**{"learning_rate": 0.1, name: value})
        assert name in str(caught.value)
        assert str(value) in str(caught.value)
    with pytest.raises(TypeError, match=r"'lr': it is called learning_rate= here"):
        entry.make(lr=0.1)


def narrow(entry, storage):
    """The optimizer with its moments stored so, m as far as it may be."""
    return entry.make(1.0, mu_dtype=storage if entry.int8_m or storage == "bfloat16" else None, nu_dtype=storage)


@each
def test_python_numbers_with_narrow_moments(entry):
    tx = narrow(entry, "bfloat16")
    updates, state = tx.update({"scale": 0.5}, tx.init({"scale": 1.0}), {"scale": 1.0})
    assert types(state) == types(tx.init({"scale": 1.0}))
    assert np.isfinite(updates["scale"])


@pytest.mark.slow
@each
@pytest.mark.parametrize("storage", ["bfloat16", adamx.storage.Int8(min_size=0)], ids=["bfloat16", "int8"])
def test_moments_may_be_stored_narrow(entry, storage):
    g, params = normal(4, 200, 64), jnp.zeros(64)
    exact, low = (scanned(tx, g, params)[0][100:] for tx in (entry.make(1.0), narrow(entry, storage)))
    slope = float(jnp.sum(exact * low) / jnp.sum(exact * exact))
    assert abs(slope - 1) < 0.05
