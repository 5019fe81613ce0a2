import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from adamx.interop import from_0_1

PARAMS = {"w": jnp.ones((4, 64)), "b": jnp.ones(3)}
INT8 = adamx.storage.Int8(64, 0)
MADE = {
    "bfloat16": adamx.adam(1e-3, mu_dtype="bfloat16", nu_dtype="bfloat16"),
    "int8": adamx.adamw(1e-3, mu_dtype=INT8, nu_dtype=INT8),
    "amsgrad": adamx.amsgrad(1e-3, nu_dtype="bfloat16"),
    "ademamix": adamx.ademamix(1e-3, mu_dtype="bfloat16", nu_dtype="bfloat16"),
    "master weights": adamx.with_master_weights(adamx.adam(1e-3, nu_dtype="bfloat16")),
    "stochastic rounding": adamx.with_stochastic_rounding(adamx.adam(1e-3, nu_dtype="float16")),
    "plain": adamx.adam(1e-3),
}


def as_in_0_1(node):
    """A state in dicts and lists, with the second counter beside each count."""
    if hasattr(node, "_fields"):
        fields = {name: as_in_0_1(value) for name, value in node._asdict().items() if value is not None}
        return fields | ({"step": fields["count"].astype(jnp.uint32)} if {"count", "mu"} <= fields.keys() else {})
    if isinstance(node, tuple):
        return [as_in_0_1(child) for child in node]
    return {name: as_in_0_1(child) for name, child in node.items()} if isinstance(node, dict) else node


@pytest.mark.parametrize("name", MADE)
def test_a_state_of_0_1_goes_on(name):
    tx = MADE[name]
    params = (
        PARAMS
        if name not in ("master weights", "stochastic rounding")
        else jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    )
    _, state = tx.update(params, tx.init(params), params)
    again = from_0_1(tx, as_in_0_1(state), params)
    assert jax.tree.structure(again) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, again, state)


def test_a_state_of_something_else_is_told():
    with pytest.raises(TypeError, match="missing 0/nu/b"):
        from_0_1(adamx.adam(1e-3), [{"count": jnp.int32(0), "mu": PARAMS}], PARAMS)
    with pytest.raises(TypeError, match="0/nu/w: expected uint8 codes"):
        from_0_1(MADE["int8"], as_in_0_1(adamx.adam(1e-3).init(PARAMS)), PARAMS)
