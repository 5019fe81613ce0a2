import functools

import flax.core
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import adamx
from adamx.core.rate import check_schedule

U = {"w": jnp.asarray([1.0, -2.0, 0.0]), "b": jnp.asarray(4.0)}


@flax.struct.dataclass
class Weights:
    kernel: jax.Array


def scaled(learning_rate, updates=U, steps=1):
    """What comes out in the last of some steps."""
    tx = adamx.scale_by_lr(learning_rate)
    state = tx.init(updates)
    for _ in range(steps):
        out, state = tx.update(updates, state)
    return out


@pytest.mark.parametrize("rate", [0.5, np.float32(0.5), np.float16(0.5), np.asarray(0.5), jnp.float32(0.5), 0, 1])
def test_a_number_multiplies_and_turns_the_sign(rate):
    out = scaled(rate)
    np.testing.assert_array_equal(out["w"], [-float(rate), 2 * float(rate), 0])
    np.testing.assert_array_equal(out["b"], -4 * float(rate))


SCHEDULES = {
    "Python float": (lambda count: 0.5, 0.5),
    "Python int": (lambda count: 2, 2.0),
    "numpy float64": (lambda count: np.float64(0.5), 0.5),
    "numpy float16": (lambda count: np.float16(0.5), 0.5),
    "numpy int": (lambda count: np.int64(2), 2.0),
    "0-d array": (lambda count: np.asarray(0.5), 0.5),
    "jax float": (lambda count: jnp.float32(0.5), 0.5),
    "jax bfloat16": (lambda count: jnp.bfloat16(0.5), 0.5),
    "jax int": (lambda count: jnp.asarray(2), 2.0),
    "the count": (lambda count: count, 2.0),
    "Python if": (lambda count: 0.5 if count < 2 else 0.25, 0.25),
    "Python float of the count": (lambda count: float(count) / 2, 1.0),
    "partial": (functools.partial(lambda a, count: a * count, 0.5), 1.0),
    "optax": (optax.linear_schedule(1.0, 0.0, 4), 0.5),
    "class": (jnp.float32, 2.0),
}


@pytest.mark.parametrize(("schedule", "third"), SCHEDULES.values(), ids=SCHEDULES.keys())
def test_a_schedule_is_called_with_the_steps_taken_before(schedule, third):
    np.testing.assert_array_equal(scaled(schedule, steps=3)["w"], -third * np.asarray([1.0, -2.0, 0.0]))


@pytest.mark.parametrize("schedule", [optax.linear_schedule(1.0, 0.0, 4), lambda count: count, lambda count: 0.5])
def test_a_schedule_is_jitted_and_scanned(schedule):
    tx = adamx.scale_by_lr(schedule)
    step = jax.jit(tx.update)
    state = jax.jit(tx.init)(U)
    for _ in range(3):
        out, state = step(U, state)
    assert step._cache_size() == 1
    assert state == optax.ScaleByScheduleState(count=3)
    state, outs = jax.lax.scan(lambda s, _: tx.update(U, s)[::-1], tx.init(U), length=3)
    np.testing.assert_array_equal(outs["w"][-1], out["w"])


SHAPED = {"jax": lambda count: jnp.ones(1), "numpy": lambda count: np.ones(1), "later": lambda count: jnp.ones(2)[None]}


@pytest.mark.parametrize("schedule", SHAPED.values(), ids=SHAPED.keys())
def test_a_schedule_that_gives_an_array_is_refused_at_init_with_its_shape(schedule):
    with pytest.raises(TypeError, match=r"learning_rate schedule <lambda> must be a scalar.*shape \(1"):
        adamx.scale_by_lr(schedule).init(U)


def no_argument():
    return 0.5


def two_arguments(count, rate):
    return rate


BAD_SCHEDULES = {
    "str": (lambda count: "0.5", ["<lambda>", "'0.5'"]),
    "None": (lambda count: None, ["<lambda>", "None"]),
    "bool": (lambda count: True, ["<lambda>", "True"]),
    "complex": (lambda count: 1j, ["<lambda>", "1j"]),
    "list": (lambda count: [0.5], ["<lambda>", "[0.5]"]),
    "no argument": (no_argument, ["no_argument", "must take the step count"]),
    "two arguments": (two_arguments, ["two_arguments", "must take the step count"]),
    "an optimizer's constructor": (adamx.adam, ["adam", "GradientTransformation"]),
    "a type": (dict, ["dict", "must take the step count"]),
    "partial": (functools.partial(lambda a, count: None, 1), ["partial", "None"]),
    "a callable model": (lambda count: jnp.ones((2, 2)) @ count, ["<lambda>"]),
}


@pytest.mark.parametrize(("schedule", "words"), BAD_SCHEDULES.values(), ids=BAD_SCHEDULES.keys())
def test_a_schedule_that_gives_no_number_is_named_at_init(schedule, words):
    tx = adamx.scale_by_lr(schedule)
    with pytest.raises(TypeError, match="learning_rate schedule") as caught:
        tx.init(U)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    with pytest.raises(TypeError, match="alpha schedule"):
        check_schedule("alpha", schedule)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5])
def test_a_schedule_that_starts_out_of_range_is_refused_at_init(value):
    with pytest.raises(ValueError, match=rf"learning_rate schedule <lambda>.*{value}"):
        adamx.scale_by_lr(lambda count: value).init(U)


def test_a_schedule_that_turns_bad_later_is_named():
    tx = adamx.scale_by_lr(lambda count: 0.5 if count < 1 else "0.5")
    _, state = tx.update(U, tx.init(U))
    with pytest.raises(TypeError, match=r"learning_rate schedule .*'0\.5'"):
        tx.update(U, state)


TREES = {
    "list": ([1e-3], "list"),
    "tuple": ((1e-3,), "tuple"),
    "dict": ({"w": jnp.ones(2)}, "dict"),
    "FrozenDict": (flax.core.freeze({"w": jnp.ones(2)}), "FrozenDict"),
    "dataclass": (Weights(jnp.ones(2)), "Weights"),
    "NNX state": (nnx.State({"w": nnx.Param(jnp.ones(2))}), "State"),
    "optax": (optax.sgd(0.1), "another optimizer"),
    "adamx": (adamx.scale_by_adam(), "another optimizer"),
}


@pytest.mark.parametrize(("value", "kind"), TREES.values(), ids=TREES.keys())
def test_a_tree_or_an_optimizer_for_a_rate_is_told_the_usage(value, kind):
    with pytest.raises(TypeError, match=rf"^learning_rate must be a number or a schedule, got .*{kind}") as caught:
        adamx.scale_by_lr(value)
    assert "adamx.adam(1e-3)" in str(caught.value)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e5m2", "float8_e4m3fn"])
@pytest.mark.parametrize("rate", [3e-3, jnp.float32(3e-3), lambda count: 3e-3], ids=["float", "array", "schedule"])
def test_narrow_updates_are_scaled_in_float32_and_rounded_once(rate, dtype):
    u = jnp.linspace(-3, 3, 41).astype(dtype)
    out = scaled(rate, u)
    assert out.dtype == u.dtype
    exact = -np.float32(3e-3) * np.asarray(u, np.float32)
    np.testing.assert_array_equal(np.asarray(out, np.float32), np.asarray(jnp.asarray(exact).astype(dtype), np.float32))


def test_float64_and_complex_updates_keep_their_precision(x64):
    rate = 0.1
    np.testing.assert_array_equal(scaled(rate, jnp.asarray([3.0])), [-rate * 3.0])
    np.testing.assert_array_equal(scaled(rate, jnp.asarray([3.0 + 1j])), [-rate * 3.0 - 1j * rate])
    assert scaled(jnp.float64(rate), jnp.float32(3)).dtype == jnp.float32


@pytest.mark.parametrize("leaf", [jnp.arange(3), np.zeros(2, jax.dtypes.float0), "relu", True, 3])
def test_leaves_that_are_no_floating_arrays_are_named(leaf):
    with pytest.raises(TypeError, match=r"at encoder/w .*adamx\.route"):
        adamx.scale_by_lr(0.5).update({"encoder": {"w": leaf}}, optax.EmptyState())


FOREIGN = {
    "of a number": optax.EmptyState(),
    "tuple": (jnp.int32(0),),
    "dict": {"count": jnp.int32(0)},
    "list": [jnp.int32(0)],
    "None": None,
    "of moments": adamx.scale_by_moments().init(U),
}


@pytest.mark.parametrize("state", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_state_of_another_kind_is_refused(state):
    with pytest.raises(TypeError, match=r"expected the state that init returned.*tx\.init\(params\)"):
        adamx.scale_by_lr(lambda count: 0.5).update(U, state)


def test_the_state_of_a_schedule_is_refused_where_there_is_none():
    state = adamx.scale_by_lr(lambda count: 0.5).init(U)
    with pytest.raises(TypeError, match=r"expected the state that init returned.*ScaleByScheduleState"):
        adamx.scale_by_lr(0.5).update(U, state)


@pytest.mark.parametrize("count", [2**31 - 1, np.int32(2**31 - 1), np.int64(2**31 - 1)])
def test_the_count_saturates_and_stays_int32(count):
    _, state = adamx.scale_by_lr(lambda count: 0.5).update(U, optax.ScaleByScheduleState(count))
    assert state.count == 2**31 - 1
    assert state.count.dtype == jnp.int32


def test_one_rate_for_each_member_of_a_vmapped_ensemble():
    rates = jnp.asarray([0.5, 0.25])
    np.testing.assert_array_equal(jax.vmap(lambda a: scaled(a)["b"])(rates), [-2.0, -1.0])
