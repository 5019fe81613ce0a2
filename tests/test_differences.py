import jax.numpy as jnp
import pytest

from adamx.differences import first_difference

X = jnp.zeros(2)
CASES = {
    "the same": ({"a": X, "b": [X]}, {"a": X, "b": [X]}, None),
    "a shape is none": ({"a": X}, {"a": jnp.zeros(3)}, None),
    "missing": ({"a": X, "b": X}, {"a": X}, "missing b"),
    "more": ({"a": {"b": X}}, {"a": {"b": X, "c": X}}, "unexpected a/c"),
    "a leaf for a node": ({"a": [X]}, {"a": X}, "at a expected list, got an array of shape (2,)"),
    "another container": ({"a": [X]}, {"a": (X,)}, "at a expected list, got tuple"),
    "nothing": (X, None, "at the tree itself expected an array of shape (2,), got None"),
    "a function": ({"f": [X]}, {"f": "relu"}, "at f expected list, got 'relu' (of an Equinox model pass"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_first_difference_is_named(name):
    expected, got, words = CASES[name]
    found = first_difference(expected, got)
    assert found is None if words is None else found.startswith(words)
