import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamx.finite import all_finite

TREE = {"a": jnp.ones((3, 4)), "b": [jnp.zeros(2, "bfloat16"), jnp.arange(3)], "none": None, "empty": jnp.zeros((0, 2))}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("leaf", ["a", "b"])
def test_one_element_tells(leaf, value):
    def spoiled(x):
        return x.at[0].set(value) if jnp.issubdtype(x.dtype, jnp.inexact) else x

    bad = jax.tree.map(spoiled, {leaf: TREE[leaf]})
    assert bool(all_finite(TREE))
    assert not bool(all_finite({**TREE, **bad}))
    assert not bool(jax.jit(all_finite)({**TREE, **bad}))


def test_a_tree_without_numbers_is_finite():
    assert bool(all_finite({}))
    assert bool(all_finite({"n": jnp.arange(3)}))
