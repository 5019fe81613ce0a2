import collections
import dataclasses
import functools
from typing import Any, NamedTuple

import flax.core
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import adamx
from adamx.trees import check_fits, leaf_dtype, map_leaves, path_name, result_dtype


class Pair(NamedTuple):
    bias: Any
    kernel: Any


@flax.struct.dataclass
class Struct:
    bias: Any
    kernel: Any
    activation: str = flax.struct.field(pytree_node=False, default="relu")


@functools.partial(jax.tree_util.register_dataclass, data_fields=["bias", "kernel"], meta_fields=["activation"])
@dataclasses.dataclass
class Data:
    bias: Any
    kernel: Any
    activation: str = "relu"


def ordered(bias, kernel):
    return collections.OrderedDict(kernel=kernel, bias=bias)


def frozen(bias, kernel):
    return flax.core.freeze({"bias": bias, "kernel": kernel})


def state(bias, kernel):
    return nnx.State({"bias": nnx.Param(bias), "kernel": nnx.Param(kernel)})


def default(bias, kernel):
    return collections.defaultdict(list, bias=bias, kernel=kernel)


def plain(bias, kernel):
    return {"bias": bias, "kernel": kernel}


CONTAINERS = [plain, ordered, frozen, state, default, Pair, Struct, Data]
BIAS, KERNEL = jnp.zeros(2), jnp.zeros((2, 3))
PARAMS = {"encoder": {"bias": BIAS, "kernel": KERNEL}}


def encoder(bias=BIAS, kernel=KERNEL):
    return {"encoder": {"bias": bias, "kernel": kernel}}


def check(gradients, params):
    check_fits(gradients, params)


def test_paths_are_printed_as_people_write_them():
    tree = {"encoder": [Pair(1.0, Struct(2.0, 3.0))], "a/b": 4.0, "z": {0: 5.0}}
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    names = ["a/b", "encoder/0/bias", "encoder/0/kernel/bias", "encoder/0/kernel/kernel", "z/0"]
    assert [path_name(path) for path, _ in paths] == names
    assert path_name(()) == "the tree itself"


DTYPES = {
    "float32": jnp.zeros(2),
    "bfloat16": np.zeros(2, jnp.bfloat16),
    "float8_e5m2": jnp.zeros(2, jnp.float8_e5m2),
    "complex64": np.zeros(2, np.complex128),
    "float16": jax.ShapeDtypeStruct((2,), jnp.float16),
}


@pytest.mark.parametrize(("dtype", "leaf"), DTYPES.items(), ids=DTYPES.keys())
def test_the_dtype_of_a_leaf(dtype, leaf):
    assert leaf_dtype("gradient", (), leaf) == jnp.dtype(dtype)


@pytest.mark.parametrize(("leaf", "narrow", "wide"), [(1.0, "float32", "float64"), (1j, "complex64", "complex128")])
def test_the_dtype_of_a_python_number_is_that_of_jax(leaf, narrow, wide, x64):
    assert leaf_dtype("gradient", (), leaf) == jnp.dtype(wide)
    jax.config.update("jax_enable_x64", False)
    assert leaf_dtype("gradient", (), leaf) == jnp.dtype(narrow)


NO_ARRAYS = {
    "int": (jnp.zeros(2, int), "int32"),
    "numpy int": (np.zeros(2, np.uint8), "uint8"),
    "int4": (jnp.zeros(2, jnp.int4), "int4"),
    "bool": (jnp.zeros(2, bool), "bool"),
    "numpy bool": (np.bool_(True), "bool"),
    "float0": (np.zeros(2, jax.dtypes.float0), "float0"),
    "Python int": (1, "1 of type int"),
    "Python bool": (True, "True of type bool"),
    "PRNG key": (jax.random.key(0), "key<fry>"),
    "PRNG keys": (jax.random.split(jax.random.key(0)), "key<fry>"),
    "str": ("relu", "'relu' of type str"),
    "numpy str": (np.array(["a", "b"]), "<U1"),
    "function": (jnp.tanh, "tanh"),
    "object": (np.array([None, None]), "object"),
    "date": (np.zeros(2, "M8[s]"), "datetime64"),
    "shape": (jax.ShapeDtypeStruct((2,), jnp.int32), "int32"),
}


@pytest.mark.parametrize(("leaf", "came"), NO_ARRAYS.values(), ids=NO_ARRAYS.keys())
def test_a_leaf_that_is_no_floating_array_is_named_with_its_path_and_the_way_out(leaf, came):
    path = jax.tree_util.tree_flatten_with_path(PARAMS)[0][0][0]
    with pytest.raises(TypeError, match=r"^gradient at encoder/bias must be an array of .* numbers, got ") as caught:
        leaf_dtype("gradient", path, leaf)
    assert came in str(caught.value)
    assert "adamx.route" in str(caught.value)


@pytest.mark.parametrize(("leaf", "came"), NO_ARRAYS.values(), ids=NO_ARRAYS.keys())
def test_parameters_are_checked_by_init(leaf, came):
    if any(kind in came for kind in ("int", "bool")):  # optax takes them, and so it does
        assert jax.tree.structure(adamx.adam(1e-3).init(encoder(leaf))[0].mu) == jax.tree.structure(encoder(leaf))
        return
    with pytest.raises(TypeError, match=r"^parameter at encoder/bias must be an array of .*adamx\.route") as caught:
        adamx.adam(1e-3).init(encoder(leaf))
    assert came in str(caught.value)


NO_FIT = {
    "broadcastable": (encoder(jnp.zeros(1)), ["gradient at encoder/bias", "(1,)", "(2,)"]),
    "scalar": (encoder(jnp.zeros(())), ["gradient at encoder/bias", "()", "(2,)"]),
    "Python float": (encoder(0.0), ["gradient at encoder/bias", "()", "(2,)"]),
    "Python complex": (encoder(0j), ["gradient at encoder/bias", "()", "(2,)"]),
    "longer": (encoder(jnp.zeros(3)), ["gradient at encoder/bias", "(3,)", "(2,)"]),
    "one more dimension": (encoder(jnp.zeros((1, 2))), ["gradient at encoder/bias", "(1, 2)", "(2,)"]),
    "transposed": (encoder(kernel=jnp.zeros((3, 2))), ["gradient at encoder/kernel", "(3, 2)", "(2, 3)"]),
    "missing": ({"encoder": {"kernel": KERNEL}}, ["missing encoder/bias"]),
    "missing node": ({}, ["missing encoder"]),
    "extra": ({"encoder": PARAMS["encoder"] | {"scale": BIAS}}, ["unexpected encoder/scale"]),
    "extra node": (PARAMS | {"head": {"bias": BIAS}}, ["unexpected head"]),
    "renamed": ({"encoder": {"biases": BIAS, "kernel": KERNEL}}, ["encoder/bias"]),
    "list for dict": ({"encoder": [BIAS, KERNEL]}, ["at encoder expected dict, got list"]),
    "OrderedDict": ({"encoder": ordered(BIAS, KERNEL)}, ["at encoder expected dict, got OrderedDict"]),
    "FrozenDict": (flax.core.freeze(PARAMS), ["at the tree itself expected dict, got FrozenDict"]),
    "array for node": ({"encoder": BIAS}, ["at encoder expected dict, got an array of shape (2,)"]),
    "node for array": (encoder({"w": BIAS}), ["at encoder/bias expected an array of shape (2,), got dict"]),
    "list for array": (encoder([0.0, 0.0]), ["at encoder/bias expected an array of shape (2,), got list"]),
    "None leaf": (encoder(None), ["at encoder/bias expected an array of shape (2,), got None"]),
    "None node": ({"encoder": None}, ["at encoder expected dict, got None"]),
    "None": (None, ["at the tree itself expected dict, got None"]),
    "masked": (encoder(optax.MaskedNode()), ["at encoder/bias expected an array of shape (2,), got MaskedNode"]),
    "bare array": (BIAS, ["at the tree itself expected dict, got an array of shape (2,)"]),
}


@pytest.mark.parametrize(("gradients", "words"), NO_FIT.values(), ids=NO_FIT.keys())
def test_trees_that_do_not_fit_are_refused_with_path_and_both_sides(gradients, words):
    with pytest.raises(ValueError, match="gradient") as caught:
        check_fits(gradients, PARAMS)
    assert all(word in str(caught.value) for word in words), str(caught.value)


SAME_TYPE = {
    "static field": ({"head": Struct(BIAS, KERNEL)}, {"head": Struct(BIAS, KERNEL, "tanh")}, ["head", "relu", "tanh"]),
    "metadata": ({"head": Data(BIAS, KERNEL)}, {"head": Data(BIAS, KERNEL, "tanh")}, ["head", "relu", "tanh"]),
    "key 1 and '1'": ({"head": {1: BIAS}}, {"head": {"1": BIAS}}, ["head", "'1'"]),
    "length": ([BIAS, [BIAS, BIAS]], [BIAS, [BIAS]], ["missing 1/1"]),
    "None in a list": ([None, BIAS], [BIAS, None], ["at 0 expected None, got an array of shape (2,)"]),
    "named tuple": ([Pair(BIAS, KERNEL)], [(BIAS, KERNEL)], ["at 0 expected Pair, got tuple"]),
}


@pytest.mark.parametrize(("params", "gradients", "words"), SAME_TYPE.values(), ids=SAME_TYPE.keys())
def test_nodes_that_differ_inside_are_named_with_both_sides(params, gradients, words):
    with pytest.raises(ValueError, match="structure of the parameter tree") as caught:
        check_fits(gradients, params)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("make", CONTAINERS, ids=lambda make: make.__name__)
def test_every_container_is_checked_and_its_leaf_is_named(make):
    moments = {"encoder": make(BIAS, KERNEL)}
    check_fits({"encoder": make(np.ones(2), jnp.ones((2, 3), jnp.bfloat16))}, moments)
    with pytest.raises(ValueError, match=r"^gradient at encoder/kernel(/value)? has shape \(3,\).*\(2, 3\)"):
        check_fits({"encoder": make(BIAS, jnp.zeros(3))}, moments)
    with pytest.raises(ValueError, match=r"at encoder/kernel(/value)? expected an array of shape \(2, 3\), got None"):
        check_fits({"encoder": make(BIAS, None)}, moments)
    with pytest.raises(ValueError, match=rf"at encoder expected {type(moments['encoder']).__name__}, got list"):
        check_fits({"encoder": [BIAS, KERNEL]}, moments)


def test_the_two_sides_have_the_names_they_are_given():
    with pytest.raises(ValueError, match=r"^update at encoder/bias has shape \(1,\), its moment has shape \(2,\)"):
        check_fits(encoder(jnp.zeros(1)), PARAMS, "update", "moment")


def test_complex_gradients_need_complex_parameters():
    check_fits(encoder(), encoder(BIAS.astype(complex)))
    with pytest.raises(TypeError, match=r"^gradient at encoder/bias is complex64, its parameter is real"):
        check_fits(encoder(BIAS.astype(complex)), PARAMS)


@pytest.mark.parametrize(
    ("leaves", "dtype"),
    [
        ([jnp.zeros(1, jnp.bfloat16), jnp.zeros(1, jnp.float16)], "float32"),
        ([jnp.zeros(1, jnp.float8_e4m3fn), jnp.zeros(1, jnp.float8_e5m2)], "float32"),
        ([1.0, np.zeros(1)], "float32"),
        ([jnp.zeros(1, jnp.bfloat16), 1j], "complex64"),
    ],
)
def test_arrays_meet_in_the_widest_precision(leaves, dtype):
    assert result_dtype(*leaves) == jnp.dtype(dtype)
    assert result_dtype(*reversed(leaves)) == jnp.dtype(dtype)


@pytest.mark.parametrize("make", [*CONTAINERS, lambda a, b: [a, (b, None, {}, ())], lambda a, b: {}, lambda a, b: None])
def test_map_leaves_keeps_the_containers(make):
    def both(x, y):
        return x + y, x - y

    a, b = make(jnp.ones(2), jnp.full((2, 3), 2.0)), make(jnp.full(2, 3.0), jnp.full((2, 3), 4.0))
    for total, difference in (map_leaves(both, 2, a, b), jax.jit(lambda *ab: map_leaves(both, 2, *ab))(a, b)):
        jax.tree.map(np.testing.assert_array_equal, total, make(jnp.full(2, 4.0), jnp.full((2, 3), 6.0)))
        jax.tree.map(np.testing.assert_array_equal, difference, make(jnp.full(2, -2.0), jnp.full((2, 3), -2.0)))


def test_map_leaves_traces_a_formula_once_for_each_shape():
    traced = []

    def formula(x):
        traced.append(x.shape)
        return (x + 1,)

    tree = [jnp.zeros(2)] * 20 + [jnp.zeros(3)] * 20
    jax.jit(lambda t: map_leaves(formula, 1, t))(tree)
    assert sorted(traced) == [(2,), (3,)]
