import jax
import jax.numpy as jnp
import pytest

import adamx
from adamx.kernels.tree import leaves_of, put_together, take_apart, with_leaves
from tests.backends import differing

PARAMS = {"a": jnp.ones((2, 3), jnp.bfloat16), "b": None, "c": [jnp.zeros(4, jnp.bfloat16)]}
WRAPPERS = {"none": lambda tx: tx, "master": adamx.with_master_weights, "stochastic": adamx.with_stochastic_rounding}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("decoupled", [False, True])
def test_apart_and_together(wrapper, decoupled):
    inner = (adamx.fused_adamw if decoupled else adamx.fused_adam)(0.1)
    tx = WRAPPERS[wrapper](inner)
    state, wrapping = tx.init(PARAMS), None if wrapper == "none" else tx.update
    parts = take_apart(state, wrapping, inner.update.recipe.stages)
    assert differing(put_together(parts), state) == []
    treedef = jax.tree.structure(PARAMS)
    leaves = leaves_of(treedef, PARAMS, PARAMS, parts)
    assert len(leaves) == 2
    assert [leaf.remainder is not None for leaf in leaves] == [wrapper == "master"] * 2
    gradients, params, again = with_leaves(treedef, leaves, parts)
    assert differing((gradients, params, put_together(again)), (PARAMS, PARAMS, state)) == []


@pytest.mark.parametrize("wrapper", ["none", "master", "stochastic"])
def test_a_wrong_state_is_named(wrapper):
    tx = WRAPPERS[wrapper](adamx.fused_adam(0.1))
    wrapping = None if wrapper == "none" else tx.update
    with pytest.raises(TypeError, match="expected"):
        take_apart((), wrapping, 2)
    with pytest.raises(TypeError, match="a tuple of 3 states, got tuple of 2"):
        take_apart(tx.init(PARAMS), wrapping, 3)
    with pytest.raises(TypeError, match="MomentsState"):
        take_apart((1, 2), None, 2)
