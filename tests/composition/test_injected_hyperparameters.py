"""What `optax.inject_hyperparams` makes arrays of, and should not: half precision, masks, exact and narrow averages."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from tests.composition.injected import (
    PARAMS,
    SAME_FORMULA,
    accepted,
    close,
    counted,
    each,
    each_adam,
    gradients,
    reference,
    with_values,
)
from tests.family import normal

HALF = [jnp.bfloat16, jnp.float16]


@pytest.mark.skipif(optax.__version__ == "0.2.5", reason="there a hyperparameter changed by hand is not cast")
@each
@pytest.mark.parametrize("dtype", HALF)
def test_decay_rates_cast_to_the_dtype_of_the_parameters_are_refused(make, dtype):
    params, inject = optax.tree.cast(PARAMS, dtype), optax.inject_hyperparams
    words = rf"b2 has dtype {jnp.dtype(dtype)}.*0\.999 is .*hyperparam_dtype=jnp\.float32"
    for b2 in (0.999, optax.constant_schedule(0.999)):
        with pytest.raises(ValueError, match=words):
            inject(make)(0.5, b2=b2).init(params)
    with pytest.raises(ValueError, match=words.replace("b2", "b1")):
        inject(make, static_args="b2")(0.5).init(params)
    tx = inject(make, hyperparam_dtype=jnp.float32)(0.5)  # and later, by hand
    state = tx.init(params)
    state.hyperparams["b2"] = jnp.asarray(0.999, dtype)
    with pytest.raises(ValueError, match=words):
        jax.jit(tx.update)(params, state, params)


@pytest.mark.slow
@each_adam
@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_with_float32_hyperparameters_is_right_by_float64(make, dtype):
    values = accepted(make, {"learning_rate": 1.0, "b1": 0.9, "b2": 0.999, "eps": 1e-3, "weight_decay": 0.5})
    tx = optax.inject_hyperparams(make, hyperparam_dtype=jnp.float32)(**values)
    params, stream = normal(5, 16, dtype=dtype), normal(6, 300, 16, dtype=dtype)
    step, traces = counted(tx.update)
    state, settings, found = tx.init(params), [], []
    for t, g in enumerate(stream):
        values = values | ({"learning_rate": 0.5} if t == 100 else {"b2": 0.99} if t == 200 else {})
        updates, state = step(g, with_values(state, **values), params)
        settings.append(values)
        found.append(updates)
    assert len(traces) == 1
    assert updates.dtype == dtype
    # Half a unit for the direction, which is rounded to the dtype, and with the decay another for the sum, as large as
    # its terms; b2 = 0.999 in float32 is off by 1.3e-8, which is 1.3e-5 of 1-b2.
    half_unit, theta = float(jnp.finfo(dtype).eps) / 2, np.asarray(params, np.float64)
    for got, expected, now in zip(found, reference(stream, settings, params), settings, strict=True):
        decay = now["learning_rate"] * now.get("weight_decay", 0.0) * np.abs(theta)
        terms = np.abs(expected) + (np.abs(expected) + decay if "weight_decay" in now else 0.0)
        error = np.abs(np.asarray(got, np.float64) - expected)
        assert (error <= 1.01 * half_unit * terms + 1e-4).all()


DECAYING = {name: getattr(adamx, name) for name in ("adamw", "nadamw", "cautious_adamw")}
each_decaying = pytest.mark.parametrize("make", DECAYING.values(), ids=DECAYING)
MASKS = {
    "by dimensions": lambda params: jax.tree.map(lambda p: p.ndim > 1, params),
    "by path": adamx.match("w"),
}
ZERO = jax.tree.map(jnp.zeros_like, PARAMS)


@each_decaying
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_a_mask_that_is_a_function_is_a_static_argument(make, mask):
    tx = optax.inject_hyperparams(make, static_args="mask")(0.5, weight_decay=0.5, mask=mask)
    step, traces = counted(tx.update)
    _, state = step(ZERO, tx.init(PARAMS), PARAMS)
    updates, _ = step(ZERO, with_values(state, weight_decay=0.25), PARAMS)
    close(updates, {"w": -0.125 * PARAMS["w"], "b": ZERO["b"]}, SAME_FORMULA)
    assert len(traces) == 1


@each_decaying
def test_a_mask_taken_for_a_schedule_is_told_the_way_out(make):
    inject = functools.partial(optax.inject_hyperparams(make), 0.5, weight_decay=0.5)
    # Called with the step count, it says of this number that it does not decay: nothing would.
    with pytest.raises(ValueError, match=r"mask=False.*optax\.inject_hyperparams.*static_args=\"mask\""):
        inject(mask=MASKS["by dimensions"]).init(PARAMS)
    with pytest.raises(TypeError, match=r"match got the step count.*static_args=\"mask\""):
        inject(mask=MASKS["by path"]).init(PARAMS)
    # One that does not look at its argument is right by luck, and compiled again when its booleans are arrays.
    tx = inject(mask=lambda _: {"w": True, "b": False})
    updates, _ = jax.jit(tx.update)(ZERO, tx.init(PARAMS), PARAMS)
    close(updates, {"w": -0.25 * PARAMS["w"], "b": ZERO["b"]}, SAME_FORMULA)
    # A mask that is a tree needs nothing.
    tx = inject(mask={"w": True, "b": False})
    updates, _ = jax.jit(tx.update)(ZERO, tx.init(PARAMS), PARAMS)
    close(updates, {"w": -0.25 * PARAMS["w"], "b": ZERO["b"]}, SAME_FORMULA)


@each
def test_precise_takes_static_decay_rates(make):
    with pytest.raises(TypeError, match="precise=True needs b2 as a Python float"):
        optax.inject_hyperparams(make)(0.5, precise=True).init(PARAMS)
    tx = optax.inject_hyperparams(make, static_args=("b1", "b2"))(0.5, precise=True)
    step, traces = counted(tx.update)
    first, state = step(gradients(0), tx.init(PARAMS), PARAMS)
    again, _ = step(gradients(0), with_values(tx.init(PARAMS), learning_rate=1.0), PARAMS)
    np.testing.assert_array_equal(again["w"], 2 * first["w"])
    assert len(traces) == 1
    assert set(state.hyperparams).isdisjoint({"b1", "b2"})


@pytest.mark.slow
@each
@pytest.mark.parametrize("storage", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["mu_dtype", "nu_dtype"])
def test_narrow_moments_keep_their_types(make, storage, name):
    # An array at init is traced in a jitted update: both must choose the same rounding, and the same state.
    tx, x = optax.inject_hyperparams(make)(0.5, **{name: storage}), jnp.ones(2)
    state = tx.init(x)
    for _, after in (jax.eval_shape(tx.update, x, state, x), tx.update(x, state, x)):
        assert jax.eval_shape(lambda after=after: after) == jax.eval_shape(lambda: state)
