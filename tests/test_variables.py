import jax
import jax.numpy as jnp
import pytest
from flax import linen, nnx

from adamx.storage import Quantized
from adamx.variables import bare, flatten_with_path, holds_leaf, is_variable, map_with_path, put_back


class Adapter(nnx.Param):
    """A type of one's own."""


VARIABLES = {
    "Param": nnx.Param(jnp.ones((2, 3))),
    "Variable": nnx.Variable(jnp.ones((2, 3))),
    "a subclass": Adapter(jnp.ones((2, 3))),
    "Partitioned": linen.Partitioned(jnp.ones((2, 3)), names=("a", None)),
    "LogicallyPartitioned": linen.LogicallyPartitioned(jnp.ones((2, 3)), names=("a", None)),
}
variables = pytest.mark.parametrize("variable", VARIABLES.values(), ids=VARIABLES)


def names(tree, is_leaf=None):
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in flatten_with_path(tree, is_leaf)[0]]


@variables
def test_a_variable_is_no_part_of_a_path(variable):
    tree = {"a": {"kernel": variable}, "value": jnp.zeros(1), "z": [variable]}
    assert is_variable(variable)
    assert holds_leaf(variable)
    found, treedef = flatten_with_path(tree)
    assert names(tree) == ["a/kernel", "value", "z/0"]
    assert treedef == jax.tree.structure(tree)
    assert [x.shape for _, x in found] == [(2, 3), (1,), (2, 3)]
    doubled = map_with_path(lambda path, x: 2 * x, tree)
    assert jax.tree.structure(doubled) == treedef
    assert float(bare(doubled)["a"]["kernel"][0, 0]) == 2.0


@variables
def test_bare_trees(variable):
    assert isinstance(bare(variable), jax.Array)
    tree = {"a": variable, "b": (variable, None, 3.0)}
    plain = bare(tree)
    assert jax.tree.leaves(plain) == jax.tree.leaves(tree)
    assert names(plain) == ["a", "b/0", "b/2"]
    assert bare({"a": 1.0, "b": None}) == {"a": 1.0, "b": None}


@variables
def test_a_moment_of_several_arrays_holds_variables(variable):
    moment = put_back(variable, Quantized(jnp.zeros((2, 3), jnp.int8), jnp.zeros((2, 1, 2))))
    assert type(moment.codes) is type(variable)
    assert bare(moment.codes).dtype == jnp.int8
    assert isinstance(moment.scales, jax.Array)
    assert type(put_back(variable, jnp.zeros((2, 3)))) is type(variable)
    assert put_back(variable, None) is None


def test_a_variable_may_hold_a_tree_or_another_one():
    variable = nnx.Variable({"a": jnp.ones(1), "b": linen.Partitioned(jnp.ones(1), names=("a",))})
    assert not holds_leaf(variable)
    assert names({"w": variable}) == ["w/a", "w/b"]
    assert names({"w": variable}, holds_leaf) == ["w/a", "w/b"]
    assert sorted(bare(variable)) == ["a", "b"]


def test_other_nodes_are_none():
    for node in ({"value": 1.0}, nnx.State({"a": nnx.Param(jnp.ones(1))}), jnp.ones(1), None, 1.0):
        assert not is_variable(node)
    assert names({"value": 1.0, "x": {"value": 2.0}}) == ["value", "x/value"]
