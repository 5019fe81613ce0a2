"""Types never move: init and every update return the same shapes, dtypes and weak types, for any mix of dtypes."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx

NARROW = ["float32", "bfloat16", "float16", "float8_e5m2", "float8_e5m2"]
NUMBERS = {
    **{dtype: jnp.ones((), dtype) for dtype in NARROW},
    "weak": jnp.asarray(1.0),
    "Python float": 1.0,
    "numpy float64": np.ones(()),
    "complex64": jnp.ones((), jnp.complex64),
    "Python complex": 1j,
}
PARAMETERS = ["float32", "bfloat16", "Python float", "numpy float64", "complex64"]
MODES = {
    "plain": (contextlib.nullcontext, {}),
    "precise": (contextlib.nullcontext, {"precise": True}),
    "strict": (lambda: jax.numpy_dtype_promotion("strict"), {}),
    "no jit": (jax.disable_jit, {}),
}


def types(tree):
    return [(jax.tree_util.keystr(k), x.shape, x.dtype, x.weak_type) for k, x in jax.tree.leaves_with_path(tree)]


def check_types(tx, params, gradients):
    """Runs a few steps outside jit, inside and in a scan, and gives the updates."""
    state = first = tx.init(params)
    step, compiled = jax.jit(tx.update), not jax.config.jax_disable_jit
    assert not any(weak for *_, weak in types(first))
    assert types(jax.eval_shape(tx.init, params)) == types(first)
    expected = types(jax.eval_shape(tx.update, gradients, first, params))
    for update in (tx.update, step, step):
        updates, state = update(gradients, state, params)
        assert types((updates, state)) == expected
        assert types(state) == types(first)
        assert all(np.isfinite(np.asarray(x, complex)).all() for x in jax.tree.leaves((updates, state)))
    assert step._cache_size() == compiled
    jax.eval_shape(lambda: jax.lax.scan(lambda s, _: (tx.update(gradients, s, params)[1], None), first, length=2))
    return updates


def is_complex(x):
    return jnp.iscomplexobj(x)


@pytest.mark.slow
@pytest.mark.parametrize(("context", "arguments"), MODES.values(), ids=MODES.keys())
@pytest.mark.parametrize("kind", PARAMETERS)
def test_types_never_move_whatever_the_gradients_are(kind, context, arguments):
    gradients = {k: g for k, g in NUMBERS.items() if is_complex(NUMBERS[kind]) or not is_complex(g)}
    params = dict.fromkeys(gradients, NUMBERS[kind])
    tx = adamx.adamw(optax.linear_schedule(0.1, 0.0, 9), weight_decay=0.1, **arguments)
    with context():
        updates = check_types(tx, params, gradients)
    for name, g in gradients.items():
        expected = jnp.float32 if "float8" in name else jnp.result_type(g)
        assert updates[name].dtype == (jnp.complex64 if is_complex(NUMBERS[kind]) else expected)


INT8 = adamx.storage.Int8(min_size=0)
VARIANTS = {
    "bfloat16 m": {"mu_dtype": jnp.bfloat16},
    "nesterov": {"nesterov": True},
    "float32 v": {"nu_dtype": jnp.float32},
    "bfloat16": {"mu_dtype": "bfloat16", "nu_dtype": "bfloat16"},
    "float8": {"mu_dtype": "float8_e5m2", "nu_dtype": "float8_e4m3fn", "nesterov": True},
    "int8": {"mu_dtype": INT8, "nu_dtype": INT8},
}


@pytest.mark.slow
@pytest.mark.parametrize("arguments", VARIANTS.values(), ids=VARIANTS.keys())
def test_types_never_move_in_variants(arguments):
    gradients = {k: jnp.broadcast_to(g, (2, 16)) for k, g in NUMBERS.items() if not is_complex(g)}
    params = dict.fromkeys(gradients, jnp.broadcast_to(NUMBERS["bfloat16"], (2, 16)))
    check_types(adamx.adam(0.1, **arguments), params, gradients)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", VARIANTS.values(), ids=VARIANTS.keys())
def test_trees_without_elements(arguments):
    tx = adamx.adamw(0.1, **arguments)
    for params in ({}, {"a": None}, {"a": jnp.zeros((0, 16)), "b": jnp.zeros((16, 0)), "c": jnp.zeros(())}):
        state = tx.init(params)
        updates, after = jax.jit(tx.update)(params, state, params)
        assert jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, state)
        assert jax.tree.structure(updates) == jax.tree.structure(params)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float64", "complex128", "Python"])
def test_types_never_move_with_x64(kind, x64):
    dtypes = ["float64", "float32", "bfloat16", *(["complex128", "complex64"] if "complex" in kind else [])]
    gradients = {d: jnp.ones((), d) for d in dtypes} | {"numpy": np.ones(()), "Python": 1.0}
    param = 1.0 if kind == "Python" else jnp.ones((), kind)
    updates = check_types(adamx.adamw(0.1, weight_decay=0.1), dict.fromkeys(gradients, param), gradients)
    assert updates["Python"].dtype == ("complex128" if "complex" in kind else "float64")
