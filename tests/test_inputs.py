"""The lists of NUMERICS.md: what adam and adamw refuse, in which words, and what they take."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import adamx

OPTIMIZERS = {"adam": adamx.adam, "adamw": adamx.adamw}
ULP = 2.0**-23
ARRAY = jnp.asarray([1.0, -2.0])
PARAMS = {"encoder": {"bias": ARRAY, "kernel": jnp.ones((2, 3))}}

both = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())


def encoder(bias, kernel=PARAMS["encoder"]["kernel"]):
    return {"encoder": {"bias": bias, "kernel": kernel}}


def types(tree):
    return [(jax.tree_util.keystr(k), x.shape, x.dtype, x.weak_type) for k, x in jax.tree.leaves_with_path(tree)]


def assert_close(a, b, ulps=8):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=ulps * ULP, atol=1e-12), a, b)


def run(tx, gradients, params, compilations=1):
    """The updates and state after three jitted steps."""
    state, step = tx.init(params), jax.jit(tx.update)
    for _ in range(3):
        updates, state = step(gradients, state, params)
    assert step._cache_size() <= compilations
    return updates, state


USAGE = "usage: adamx.adam(1e-3)"
BAD_ARGUMENTS = [
    *[("learning_rate", v, TypeError, repr(v)) for v in ("1e-3", None, True, 1j)],
    *[("learning_rate", v, TypeError, USAGE) for v in ([1e-3], {"a": 1e-3}, PARAMS, optax.sgd(0.1), adamx.adam(0.1))],
    *[(a, v, ValueError, repr(v)) for a in ("learning_rate", "eps", "eps_root") for v in (-1e-3, np.nan, np.inf)],
    *[("learning_rate", v, ValueError, str(v.shape)) for v in (np.ones(1), jnp.ones((2, 3)))],
    *[(b, v, ValueError, repr(float(v))) for b in ("b1", "b2") for v in (-0.1, 1, 1.5, np.nan, np.inf)],
    *[(b, v, TypeError, repr(v)) for b in ("b1", "b2", "eps", "eps_root") for v in ("0.9", None)],
    *[(b, (0.9, 0.999), TypeError, "pass b1= and b2=") for b in ("b1", "b2")],
    *[(b, jnp.bfloat16(0.5), ValueError, "hyperparam_dtype=jnp.float32") for b in ("b1", "b2")],
    *[(d, v, TypeError, str(jnp.dtype(v))) for d in ("mu_dtype", "nu_dtype") for v in (int, "int8", jnp.int32)],
    *[(d, jnp.float64, ValueError, "float64") for d in ("mu_dtype", "nu_dtype")],
    *[(f, "no", TypeError, "True or False, got 'no'") for f in ("nesterov", "precise")],
]
OTHER_NAMES = {"betas": "b1= and b2=", "epsilon": "eps=", "lr": "learning_rate=", "beta1": "b1=", "beta2": "b2="}


@both
@pytest.mark.parametrize(("argument", "value", "error", "words"), BAD_ARGUMENTS)
def test_a_bad_hyperparameter_is_named_with_its_value_at_construction(make, argument, value, error, words):
    with pytest.raises(error) as caught:
        make(**{"learning_rate": 1e-3, argument: value})
    assert argument in str(caught.value)
    assert words in str(caught.value)


@both
@pytest.mark.parametrize(("given", "here"), OTHER_NAMES.items())
def test_a_name_used_elsewhere_is_told_the_name_here(make, given, here):
    with pytest.raises(TypeError, match=rf"'{given}': it is called {here}"):
        make(**{given: 0.5})


@both
@pytest.mark.parametrize("schedule", [lambda count: "a", lambda count: None, lambda: 1e-3], ids=["str", "None", "()"])
def test_a_schedule_that_gives_no_number_is_named_at_init(make, schedule):
    with pytest.raises(TypeError, match="learning_rate schedule <lambda>"):
        make(schedule).init(PARAMS)


KEYS = jax.random.split(jax.random.key(0))
BAD_GRADIENTS = {
    "broadcastable": (encoder(jnp.ones(1)), ValueError, ["encoder/bias", "(1,)", "(2,)"]),
    "other shape": (encoder(jnp.ones(3)), ValueError, ["encoder/bias", "(3,)", "(2,)"]),
    "missing": ({"encoder": {"bias": ARRAY}}, ValueError, ["missing encoder/kernel"]),
    "extra": ({**PARAMS, "head": ARRAY}, ValueError, ["unexpected head"]),
    "other container": ({"encoder": [ARRAY, ARRAY]}, ValueError, ["encoder", "dict", "list"]),
    "None": (encoder(None), ValueError, ["encoder/bias", "(2,)", "None"]),
    "int": (encoder(jnp.ones(2, int)), TypeError, ["encoder/bias", "int32", "adamx.route"]),
    "bool": (encoder(jnp.ones(2, bool)), TypeError, ["encoder/bias", "bool", "adamx.route"]),
    "float0": (encoder(np.zeros(2, jax.dtypes.float0)), TypeError, ["encoder/bias", "float0", "adamx.route"]),
    "complex": (encoder(ARRAY * 1j), TypeError, ["encoder/bias", "complex64", "real"]),
    "PRNG key": (encoder(KEYS), TypeError, ["encoder/bias", "key<fry>"]),
    "str": (encoder("relu"), TypeError, ["encoder/bias", "'relu'"]),
    "function": (encoder(jnp.tanh), TypeError, ["encoder/bias", "tanh"]),
}


@both
@pytest.mark.parametrize(("gradients", "error", "words"), BAD_GRADIENTS.values(), ids=BAD_GRADIENTS.keys())
def test_gradients_that_do_not_fit_are_named_at_trace_time(make, gradients, error, words):
    tx = make(1e-3)
    state = tx.init(PARAMS)
    for update in (tx.update, lambda *a: jax.eval_shape(lambda: tx.update(*a))):
        with pytest.raises(error, match="gradient") as caught:
            update(gradients, state, PARAMS)
        assert all(word in str(caught.value) for word in words), str(caught.value)


def states(own):
    """By kind, what is no state of the optimizer, and what the error must say that came."""
    first, rest = own[0], own[1:]
    yield "None", None, "NoneType"
    yield "fields in a dict", first._asdict(), "dict with the keys ['count', 'mu', 'nu']"
    yield "numbered dict", {str(i): s for i, s in enumerate(own)}, "dict with the keys ['0', '1'"
    yield "list", list(own), f"list of {len(own)}"
    yield "moments as dict", (first._asdict(), *rest), "dict with the keys ['count', 'mu', 'nu']"
    yield "moments as list", (list(first), *rest), "list of 3"
    yield "moments as tuple", (tuple(first), *rest), "tuple of 3"
    yield "one stage", first, "MomentsState"
    yield "shorter", own[:-1], f"tuple of {len(own) - 1}"
    yield "optax.adam", (optax.ScaleByAdamState(*first), *rest), "ScaleByAdamState"
    yield "optax.sgd", (optax.trace(0.9).init(PARAMS), *rest), "TraceState"
    yield "parameters", PARAMS, "dict with the keys ['encoder']"
    yield "count of floats", (first._replace(count=jnp.float32(0)), *rest), "count"
    yield "count in an array", (first._replace(count=jnp.zeros(1, int)), *rest), "count"
    yield "nu of one leaf", (first._replace(nu={"encoder": {"bias": ARRAY}}), *rest), "encoder/kernel"
    yield "nu of another shape", (first._replace(nu=encoder(jnp.ones(1))), *rest), "encoder/bias"
    yield "mu of integers", (first._replace(mu=encoder(jnp.ones(2, int))), *rest), "encoder/bias"
    yield "mu of text", (first._replace(mu=encoder("relu")), *rest), "encoder/bias"


KINDS = [kind for kind, *_ in states(adamx.adam(0.1).init(PARAMS))]


@both
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_of_another_kind_is_refused_with_what_came_and_the_way_to_restore(make, kind):
    tx = make(1e-3)
    state, came = next((s, c) for k, s, c in states(tx.init(PARAMS)) if k == kind)
    for update in (tx.update, lambda *a: jax.eval_shape(lambda: tx.update(*a))):
        with pytest.raises(TypeError, match=r"expected .*tx\.init\(params\) as its template") as caught:
            update(PARAMS, state, PARAMS)
        assert came in str(caught.value)


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2, 1), (1, 2, 0), (2, 0)])
def test_swapped_arguments_are_told_their_order(order):
    tx = adamx.adam(1e-3)
    with pytest.raises(TypeError, match=r"update\(gradients, state, params\)"):
        tx.update(*((PARAMS, tx.init(PARAMS), PARAMS)[i] for i in order))


TREES = {
    "zero size": {"a": jnp.ones((0, 3)), "b": jnp.ones((2, 0))},
    "scalar": jnp.asarray(2.0),
    "empty": {},
    "None": {"a": None, "b": (None, ARRAY)},
    "nodes without leaves": {"a": {}, "b": [(), ARRAY], "c": optax.MaskedNode()},
    "NNX": nnx.State({"a": nnx.Param(ARRAY)}),
    "keys": {("a", 0): ARRAY, ("b", 1): {"": ARRAY, "a/b": ARRAY}},
}


@both
@pytest.mark.parametrize("params", TREES.values(), ids=TREES.keys())
def test_unusual_trees_give_what_optax_gives(make, params):
    gradients = jax.tree.map(lambda p: p * 0.5, params)
    updates, state = run(make(optax.linear_schedule(0.1, 0.0, 9)), gradients, params)
    expected, _ = run(getattr(optax, make.__name__)(optax.linear_schedule(0.1, 0.0, 9)), gradients, params, 2)
    assert_close(updates, expected)
    assert jax.tree.structure(state[0].mu) == jax.tree.structure(params)
    mapped = optax.tree.map_params(make(0.1), lambda x: x + 1, make(0.1).init(params))
    jax.tree.map(lambda x: np.testing.assert_array_equal(x, 1), mapped[0].nu)


@pytest.mark.slow
@both
def test_shapes_stand_for_parameters(make):
    tx, shapes = make(lambda count: 1e-3), jax.eval_shape(lambda: PARAMS)
    assert types(tx.init(shapes)) == types(tx.init(PARAMS)) == types(jax.eval_shape(tx.init, PARAMS))
    assert_close(tx.update(PARAMS, tx.init(shapes), PARAMS), tx.update(PARAMS, tx.init(PARAMS), PARAMS), ulps=0)


@both
def test_unknown_extra_arguments_pass(make):
    tx = make(1e-3)
    extra = tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=1.0, batch="anything")
    assert_close(extra, tx.update(PARAMS, tx.init(PARAMS), PARAMS), ulps=0)


def wide_numpy(x):
    return np.asarray(x, np.float64 if jnp.issubdtype(x.dtype, jnp.floating) else np.int64)


@both
@pytest.mark.parametrize("as_numpy", [np.asarray, wide_numpy], ids=["as it was", "float64"])
def test_a_state_of_numpy_arrays_goes_on_as_before(make, as_numpy):
    tx = make(lambda count: 1e-3)
    _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    expected = tx.update(PARAMS, state, PARAMS)
    for update in (tx.update, jax.jit(tx.update)):
        found = update(PARAMS, jax.tree.map(as_numpy, state), PARAMS)
        assert types(found) == types(expected)
        assert_close(found, expected)


@both
@pytest.mark.parametrize("donated", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_any_argument_may_be_donated(make, donated):
    tx = make(lambda count: 1e-3)
    gradients, state, params = (jax.tree.map(jnp.copy, t) for t in (PARAMS, tx.init(PARAMS), PARAMS))
    found = jax.jit(lambda g, s, p: (*tx.update(g, s, p), p), donate_argnums=donated)(gradients, state, params)
    assert_close(found[:2], tx.update(PARAMS, tx.init(PARAMS), PARAMS))


@pytest.mark.parametrize("eps", [0, 0.0, 1e-40, 1e-60, jnp.float32(0), jnp.float32(1e-40), np.float64(1e-60)])
def test_tiny_epsilon_leaves_zero_at_zero_and_steps_bounded(eps):
    gradients = jnp.asarray([0.0, 1.0, -1e-10, 1e-20, -1e-30, 1e-40])
    for tx in (adamx.adam(1.0, eps=eps), adamx.adam(1.0, eps=eps, eps_root=1e-60, precise=True)):
        updates, state = run(tx, gradients, gradients)
        assert updates[0] == 0
        np.testing.assert_allclose(updates[1:3], [-1, 1], rtol=1e-5)
        assert np.abs(updates).max() < 1 + 1e-5
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))


@pytest.mark.slow
@pytest.mark.parametrize(("eps", "eps_root"), [(1e-8, 0.0), (1e-3, 1e-8), (0.0, 1e-8), (0.0, 0.0), (1e-40, 0.0)])
def test_derivatives_at_a_zero_gradient(eps, eps_root):
    tx = adamx.adam(1.0, eps=eps, eps_root=eps_root, precise=eps_root > 0)
    _, state = tx.update(jnp.zeros(()), tx.init(jnp.zeros(())))
    second = lambda g: tx.update(g, state)[0]  # m̂ is 0.1 g / (1 - 0.9²)
    value, slope = jax.jvp(second, (0.0,), (1.0,))
    assert value == second(jnp.zeros(())) == 0
    denominator = eps + eps_root**0.5 if eps + eps_root > 1e-38 else 1.0
    np.testing.assert_allclose([slope, jax.grad(second)(0.0)], -0.1 / 0.19 / denominator, rtol=1e-5)
    assert np.isfinite(jax.grad(jax.grad(second))(0.0))


@pytest.mark.parametrize("name", ["b1", "b2"])
@pytest.mark.parametrize("rate", [1 - 1e-7, 1 - 1e-8, 1 - 2.0**-53])
def test_a_decay_rate_that_float32_cannot_tell_from_one_works_or_is_told_the_way_out(rate, name):
    updates, text = np.nan, ""
    try:
        updates, _ = run(adamx.adam(1.0, **{name: rate}), ARRAY, ARRAY)
    except ValueError as error:
        text = str(error)
    assert np.allclose(updates, [-1, 1], rtol=0.2) or (name in text and "precise=True" in text)
