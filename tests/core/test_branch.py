import jax
import jax.numpy as jnp
import numpy as np

from adamx.core.branch import branch


def test_one_of_both_in_the_types_of_what_is_taken():
    def taken():
        return {"a": jnp.ones(3), "b": jnp.ones((), jnp.bfloat16)}

    def kept(shapes):
        assert (shapes["a"].shape, shapes["a"].dtype) == ((3,), jnp.float32)
        return {"a": jnp.zeros(3, jnp.bfloat16), "b": 2.0}

    for run in (lambda f: f, jax.jit):
        for go, expected in ((True, (1, 1)), (False, (0, 2))):
            found = run(lambda go: branch(go, taken, kept))(jnp.bool_(go))
            assert (found["a"].dtype, found["b"].dtype) == (jnp.float32, jnp.bfloat16)
            np.testing.assert_array_equal(found["a"], expected[0])
            assert float(found["b"]) == expected[1]
