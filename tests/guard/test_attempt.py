import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from adamx.guard.attempt import is_finite


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float8_e4m3fn", "complex64"])
@pytest.mark.parametrize("fault", [np.nan, np.inf, -np.inf, None])
def test_one_element_tells(dtype, fault):
    if dtype == "float8_e4m3fn" and fault in (np.inf, -np.inf):
        fault = np.nan  # it has no infinity
    x = np.ones(100, np.complex64 if dtype == "complex64" else np.float32)
    x[7] = jnp.finfo(dtype).max
    if fault is not None:
        x[93] = complex(0, fault) if dtype == "complex64" else fault
    assert bool(is_finite(jnp.asarray(x).astype(dtype))) == (fault is None)


def test_the_largest_complex_numbers_are_finite():
    assert is_finite(jnp.asarray([3e38 + 3e38j]))


def test_empty_leaves_and_python_numbers():
    assert is_finite(jnp.ones((0, 3)))
    assert is_finite(1.0)


def test_a_faulty_step_costs_no_array_of_answers():
    x = jnp.ones(2**16)
    compiled = jax.jit(is_finite).lower(x).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 1024


def test_state_of_other_types_than_the_update_gives():
    # optax keeps m in the parameters' dtype until the first float32 gradient.
    import optax  # noqa: PLC0415

    tx = adamx.skip_nonfinite(optax.adam(0.1))
    params = jnp.ones(2, jnp.bfloat16)
    updates, state = tx.update(jnp.ones(2), tx.init(params), params)
    assert updates.dtype == jnp.float32
    assert state.inner[0].mu.dtype == jnp.float32
