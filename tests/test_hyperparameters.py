import inspect
from decimal import Decimal
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from adamx import hyperparameters
from adamx.hyperparameters import decay_rate, flag, floating_dtype, names_hints, nonnegative, scalar

NO_NUMBERS = {
    "str": "1e-3",
    "numpy str": np.str_("1e-3"),
    "array of str": np.array("1e-3"),
    "bytes": b"1",
    "None": None,
    "array of None": np.array(None),
    "bool": True,
    "numpy bool": np.True_,
    "array of bool": jnp.asarray(True),
    "complex": 1j,
    "numpy complex": np.complex64(1j),
    "list": [0.5],
    "dict": {"a": 0.5},
    "set": {0.5},
    "Decimal": Decimal("0.5"),
    "Fraction": Fraction(1, 2),
    "date": np.datetime64("2020-01-01"),
    "PRNG key": jax.random.key(0),
    "shape": jax.ShapeDtypeStruct((), jnp.float32),
}
NUMPY_NUMBERS = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)] + ["float16", "float32"]
HALVES = [jnp.bfloat16, jnp.float16, jnp.float8_e4m3fn, jnp.float8_e5m2]


@pytest.mark.parametrize("check", [scalar, nonnegative])
@pytest.mark.parametrize("value", NO_NUMBERS.values(), ids=NO_NUMBERS.keys())
def test_what_is_no_number_is_named(check, value):
    with pytest.raises(TypeError) as caught:
        check("eps", value)
    assert str(caught.value).startswith("eps must be a real number, got ")
    assert repr(value).split("\n")[0] in str(caught.value)


@pytest.mark.parametrize("value", [pytest.param(v, id=k) for k, v in NO_NUMBERS.items() if k != "list"])
def test_a_decay_rate_that_is_no_number_is_named(value):
    with pytest.raises(TypeError, match=r"^b2 must be a real number, got "):
        decay_rate("b2", value)


@pytest.mark.parametrize("array", [np.full, jnp.full])
@pytest.mark.parametrize("shape", [(1,), (2,), (1, 1), (0,)])
@pytest.mark.parametrize("check", [scalar, nonnegative, decay_rate])
def test_arrays_with_dimensions_are_refused_with_their_shape(check, shape, array):
    with pytest.raises(ValueError, match=r"^eps must be a scalar, got an array of shape \(") as caught:
        check("eps", array(shape, 0.5))
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("number", [-1e-3, -5e-324, -1, np.nan, np.inf, -np.inf])
def test_numbers_out_of_range_are_refused_with_their_value(number):
    with pytest.raises(ValueError, match=r"^eps must be a finite number of at least 0, got "):
        nonnegative("eps", number)
    with pytest.raises(ValueError, match=r"^b1 must be in \[0, 1\), got "):
        decay_rate("b1", number)


@pytest.mark.parametrize("check", [nonnegative, decay_rate])
def test_an_integer_too_large_for_a_float_is_refused(check):
    with pytest.raises(ValueError, match=r"^b1 must be "):
        check("b1", 10**400)


@pytest.mark.parametrize("wrap", [float, np.float16, np.float32, np.float64, np.asarray, jnp.asarray, jnp.bfloat16])
@pytest.mark.parametrize("number", [-0.5, np.nan, np.inf])
def test_every_kind_of_number_is_checked(number, wrap):
    with pytest.raises(ValueError, match=rf"^eps must be a finite number of at least 0, got {number}"):
        nonnegative("eps", wrap(number))


@pytest.mark.parametrize("number", [1.0, 1, 1.5, np.float32(1), np.float64(1), np.asarray(1.0), jnp.asarray(1.0)])
def test_a_decay_rate_is_below_one(number):
    with pytest.raises(ValueError, match=rf"^b1 must be in \[0, 1\), got {float(number)}$"):
        decay_rate("b1", number)


@pytest.mark.parametrize("number", [0, 0.0, 0.5, 0.9999999999])
def test_python_numbers_become_floats(number):
    for check in (scalar, nonnegative, decay_rate):
        assert check("b1", number) == number
        assert type(check("b1", number)) is float


@pytest.mark.parametrize("dtype", [*NUMPY_NUMBERS, "float64", "bfloat16", "float8_e4m3fn"])
def test_numpy_numbers_of_every_dtype_become_floats(dtype):
    number = jnp.dtype(dtype).type(0.5)
    for value in (number, np.asarray(number)):
        assert nonnegative("eps", value) == float(number)
        assert type(nonnegative("eps", value)) is float


@pytest.mark.parametrize("dtype", ["int32", "float32", "bfloat16", "float16", "float8_e4m3fn"])
def test_jax_scalars_pass_as_they_are(dtype):
    value = jnp.asarray(0.5, dtype)
    assert nonnegative("eps", value) is value


@pytest.mark.parametrize("check", [scalar, nonnegative, decay_rate])
def test_traced_numbers_pass_unread_and_traced_nonsense_does_not(check):
    def f(value):
        assert check("b1", value) is value
        return value

    assert jax.jit(f)(7.0) == 7
    np.testing.assert_array_equal(jax.vmap(f)(jnp.arange(3.0)), jnp.arange(3.0))
    with pytest.raises(TypeError, match=r"^b1 must be a real number"):
        jax.jit(f)(True)
    with pytest.raises(ValueError, match=r"^b1 must be a scalar, got an array of shape \(2,\)"):
        jax.jit(f)(jnp.ones(2))


@pytest.mark.parametrize("pair", [(0.9, 0.999), [0.9, 0.999], (), (0.9,)])
def test_a_pair_of_decay_rates_is_told_to_come_as_two(pair):
    with pytest.raises(TypeError, match="b1= and b2=") as caught:
        decay_rate("b1", pair)
    assert str(pair) in str(caught.value)


def test_a_schedule_of_a_decay_rate_is_told_the_way():
    with pytest.raises(TypeError, match=r"b2 must be a number.*adamx\.inject_hyperparams"):
        decay_rate("b2", lambda count: 0.9)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("array", [jnp.asarray, np.asarray])
def test_a_half_precision_decay_rate_is_told_its_dtype_and_the_way_out(array, dtype):
    words = rf"^b2 has dtype {jnp.dtype(dtype)}.*hyperparam_dtype=jnp\.float32"
    for build in (decay_rate, lambda name, b: jax.eval_shape(lambda b: decay_rate(name, b), b)):
        with pytest.raises(ValueError, match=words):
            build("b2", array(0.5, dtype))


def test_precise_needs_the_decay_rate_on_the_host():
    assert decay_rate("b1", 0.9, precise=True) == 0.9
    words = "precise=True needs b1 as a Python float"
    with pytest.raises(TypeError, match=words):
        decay_rate("b1", jnp.float32(0.9), precise=True)
    with pytest.raises(TypeError, match=words):
        jax.jit(lambda b: decay_rate("b1", b, precise=True))(0.9)


@pytest.mark.parametrize("value", ["no", "", 0, 1, 0.0, None, jnp.asarray(True), [True]])
def test_flags_are_true_or_false(value):
    with pytest.raises(TypeError, match=r"^nesterov must be True or False, got ") as caught:
        flag("nesterov", value)
    assert repr(value) in str(caught.value)
    assert flag("nesterov", True) is flag("nesterov", np.True_) is True
    assert flag("nesterov", False) is flag("nesterov", np.False_) is False


NO_DTYPES = [int, bool, str, "int8", jnp.uint4, "nonsense", "", 3, 1.5, True, [], (), {"a": 1}, "f,f", complex]


@pytest.mark.parametrize("value", [*NO_DTYPES, jnp.complex64, jax.dtypes.float0], ids=str)
def test_storage_dtypes_are_real_and_floating(value):
    with pytest.raises(TypeError, match=r"^nu_dtype must be a (real )?floating dtype or None, got "):
        floating_dtype("nu_dtype", value)


@pytest.mark.parametrize("value", ["float16", jnp.bfloat16, np.float32, np.dtype("float32"), "f4", jnp.float8_e5m2])
def test_floating_dtypes_pass_in_every_notation(value):
    assert floating_dtype("mu_dtype", None) is None
    assert floating_dtype("mu_dtype", value) == jnp.dtype(value)


@pytest.mark.parametrize("value", [float, "float64", jnp.float64, np.dtype("float64")])
def test_float64_needs_x64(value):
    with pytest.raises(ValueError, match=r"^mu_dtype is float64.*jax_enable_x64"):
        floating_dtype("mu_dtype", value)


def test_float64_passes_with_x64(x64):
    assert floating_dtype("mu_dtype", float) == jnp.float64


ELSEWHERE = [
    (adamx.scale_by_moments, "beta1", "b1="),
    (adamx.scale_by_moments, "betas", "b1= and b2="),
    (adamx.scale_by_adam, "epsilon", "eps="),
    (adamx.bias_correction, "epsilon", "eps="),
    (adamx.uncorrected, "epsilon", "eps="),
    (adamx.scale_by_lr, "lr", "learning_rate="),
    (adamx.scale_by_lr, "step_size", "learning_rate="),
    (adamx.add_decayed_weights, "wd", "weight_decay="),
]


@pytest.mark.parametrize(("build", "given", "here"), ELSEWHERE, ids=lambda x: getattr(x, "__name__", str(x)))
def test_a_stage_knows_the_names_used_elsewhere(build, given, here):
    with pytest.raises(TypeError, match=rf"{build.__name__}\(\) has no argument '{given}'.*{here}"):
        build(**{given: 0.5})


@names_hints
def build(b1=0.9, *, mask=None):
    """Docs."""
    return b1, mask


def test_names_hints_leaves_the_function_as_it_was():
    assert build(0.5, mask=1) == (0.5, 1)
    assert list(inspect.signature(build).parameters) == ["b1", "mask"]
    assert (build.__name__, build.__doc__) == ("build", "Docs.")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("beta1", "it is called b1= here"),
        ("weight_decay_mask", "it is called mask= here"),
        ("lr", "it takes b1, mask"),
        ("nonsense", "it takes b1, mask"),
    ],
)
def test_names_hints_says_only_names_that_the_function_has(given, words):
    with pytest.raises(TypeError, match=rf"^build\(\) has no argument '{given}': {words}$"):
        build(**{given: 1})


def test_every_hint_leads_to_an_argument_of_adamw():
    known = inspect.signature(adamx.adamw).parameters
    assert {here.split("=")[0] for here in hyperparameters._OTHER_NAMES.values()} <= known.keys()
    assert not hyperparameters._OTHER_NAMES.keys() & known.keys()


HYPERPARAMETERS = {"learning_rate": 0.1, "b1": 0.8, "b2": 0.9, "eps": 1e-3, "eps_root": 1e-3, "weight_decay": 0.1}


@pytest.mark.parametrize("name", HYPERPARAMETERS)
def test_a_traced_or_vmapped_hyperparameter_does_what_a_number_does(name):
    def first(x):
        tx = adamx.adamw(**{**HYPERPARAMETERS, name: x})
        return tx.update(array, tx.init(array), array)[0]

    number, array = HYPERPARAMETERS[name], jnp.asarray([1.0, -2.0])
    for found in (jax.jit(first)(number), first(jnp.float32(number)), jax.vmap(first)(jnp.full(2, number))[1]):
        np.testing.assert_allclose(found, first(number), rtol=32 * 2.0**-23)
