import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from adamx.patterns import check_all_match, check_patterns, first_match

X = jnp.ones(1)
TREE = {"body": {"norm": X, "kernel": X}, "head": {"kernel": X}}
LEFT_OUT = {"body": {"norm": optax.MaskedNode(), "kernel": X}, "head": {"kernel": X}}
WHOLE = {"body": optax.MaskedNode(), "head": {"kernel": X}}
NNX = nnx.State({"body": {"norm": nnx.Param(X), "kernel": nnx.Param(X)}, "head": {"kernel": nnx.Param(X)}})


@pytest.mark.parametrize("tree", [TREE, LEFT_OUT, NNX], ids=["whole", "a group", "NNX"])
def test_every_pattern_is_found_in_a_path(tree):
    check_all_match("f", ("norm$", "^head/kernel$"), tree)
    check_all_match("f", (), tree)
    near = r"f: no path matches 'nrom'\. There are 3, among them: body/norm, "
    with pytest.raises(ValueError, match=near):
        check_all_match("f", ("kernel", "nrom"), tree)


def test_a_subtree_that_is_left_out_counts_by_its_own_path():
    check_all_match("f", ("body", "kernel$"), WHOLE)
    with pytest.raises(ValueError, match="no path matches 'norm'"):
        check_all_match("f", ("norm",), WHOLE)


@pytest.mark.parametrize("tree", [{}, None, optax.MaskedNode(), {"a": optax.MaskedNode()}])
def test_where_there_are_no_leaves_nothing_is_checked(tree):
    check_all_match("f", ("norm",), tree)


def test_the_first_pattern_that_is_found():
    assert first_match(("a$", "b"), "b/a") == 0
    assert first_match(("c", "b"), "b/a") == 1
    assert first_match(("^a",), "b/a") is None


def test_what_is_no_pattern():
    assert check_patterns("f", ["a", "b$"]) == ("a", "b$")
    with pytest.raises(TypeError, match="f takes regular expressions, got 3 of type int"):
        check_patterns("f", (3,))
    with pytest.raises(ValueError, match=r"f: '\(' is not a regular expression"):
        check_patterns("f", ("(",))
