import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamx.core.leaf import to_float32
from adamx.core.step import tree_to_float32
from adamx.precision.half import start_in_float32
from adamx.storage.codec import is_half

HALF = ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"]


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_becomes_float32_exactly(dtype):
    assert is_half(jnp.dtype(dtype))
    x = jnp.asarray([1.5, -0.25, 0.0, 3.0], dtype)
    assert to_float32(x).dtype == jnp.float32
    np.testing.assert_array_equal(to_float32(x), np.asarray(x).astype(np.float32))


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_the_rest_stays(dtype):
    assert not is_half(jnp.dtype(dtype))
    assert to_float32(jnp.ones(2, dtype)).dtype == jnp.dtype(dtype)


def test_trees_and_shapes():
    params = {"a": jnp.ones(2, jnp.bfloat16), "b": jax.ShapeDtypeStruct((3,), jnp.float16), "c": jnp.ones(2), "d": None}
    start = start_in_float32(params)
    assert start["b"] == jax.ShapeDtypeStruct((3,), jnp.float32)
    assert start["a"].dtype == start["c"].dtype == jnp.float32
    assert tree_to_float32({"a": params["a"], "d": None})["a"].dtype == jnp.float32
    integers = {"x": jnp.arange(3)}  # the first update refuses them
    assert start_in_float32(integers) == integers
