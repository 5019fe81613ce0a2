import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamx.loop.objective import checked, strongly_typed


def test_the_objective_is_a_pair_with_and_without_aux():
    value, aux = checked(lambda p, b: p * b, False)(jnp.float32(2.0), 3.0)
    assert (float(value), aux) == (6.0, None)
    value, aux = checked(lambda p: (p, "more"), True)(jnp.float32(2.0))
    assert (float(value), aux) == (2.0, "more")


@pytest.mark.parametrize(
    ("returned", "has_aux", "message"),
    [
        (jnp.zeros(3), False, r"real floating scalar, got float32 of shape \(3,\)"),
        (jnp.int32(1), False, r"real floating scalar, got int32 of shape \(\)"),
        (jnp.complex64(1), False, "real floating scalar, got complex64"),
        (None, False, "real scalar, got NoneType"),
        ((jnp.zeros([]), 1), False, "got a tuple of 2: a pair needs has_aux=True"),
        (jnp.zeros([]), True, "must return a pair, objective and aux, got ArrayImpl"),
        ((jnp.zeros([]), 1, 2), True, "must return a pair, objective and aux, got a tuple of 3"),
        ((jnp.zeros(2), 1), True, r"real floating scalar, got float32 of shape \(2,\)"),
    ],
)
def test_what_fun_returns_is_checked(returned, has_aux, message):
    with pytest.raises(TypeError, match=message):
        checked(lambda p: returned, has_aux)(jnp.zeros(1))


def test_fun_is_a_function():
    with pytest.raises(TypeError, match=r"fun must be a function of the parameters, got 3\.0 of type float"):
        checked(3.0, False)


@pytest.mark.parametrize("p", [1.0, np.float32(1), jnp.asarray(1.0), np.zeros(2, np.float32), 1j, jnp.bfloat16(1)])
def test_parameters_become_arrays_of_a_strong_type(p):
    found = strongly_typed((), p)
    assert isinstance(found, jax.Array)
    assert found.dtype == jnp.result_type(p)
    assert not found.weak_type


@pytest.mark.parametrize(
    ("p", "came"),
    [
        (1, "got 1 of type int"),
        (True, "got True of type bool"),
        (jnp.arange(2), "got dtype int32"),
        ("w", "got 'w' of type str"),
        (jax.random.key(0), "got dtype key"),
    ],
)
def test_other_parameters_are_named_by_their_path(p, came):
    with pytest.raises(TypeError, match=f"the parameter at layer/n must be an array of .*, {came}.*: let fun close"):
        jax.tree_util.tree_map_with_path(strongly_typed, {"layer": {"n": p}})
