import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamx.core.branch import branch, no_updates


@pytest.mark.parametrize("taken", [True, False])
def test_a_step_is_taken_or_left_out_in_the_same_types(taken):
    state = {"count": jnp.int32(3), "mu": jnp.ones(2, jnp.bfloat16)}

    def take(state):
        return jnp.full(2, 7.0), {"count": state["count"] + 1, "mu": state["mu"] * 2}

    moved, after = jax.jit(lambda t: branch(t, take, no_updates, state))(taken)
    np.testing.assert_array_equal(moved, np.full(2, 7.0 if taken else 0.0))
    assert (int(after["count"]), float(after["mu"][0])) == ((4, 2.0) if taken else (3, 1.0))
    assert after["mu"].dtype == jnp.bfloat16
