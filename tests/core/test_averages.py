import jax.numpy as jnp
import numpy as np
import pytest

from adamx.core.averages import averages_of, check_rates, check_storage, of_squares
from adamx.storage import Float, Int8
from adamx.storage.dither import Walk


def averages(b1=0.5, b2=0.75, mu=None, nu=None, precise=False):
    return averages_of(of_squares, b1, b2, mu, nu, precise)


def test_lines_7_and_8():
    m, v, mu, nu = averages().step(jnp.array([2.0]), jnp.array([4.0]), jnp.array([8.0]))
    np.testing.assert_array_equal(m, [3.0])
    np.testing.assert_array_equal(v, [7.0])
    np.testing.assert_array_equal(mu, m)
    np.testing.assert_array_equal(nu, v)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3fn"])
def test_half_precision_is_averaged_in_float32(dtype):
    m, v, *_ = averages().step(jnp.array([2.0], dtype), jnp.zeros(1), jnp.zeros(1))
    assert m.dtype == v.dtype == jnp.float32


@pytest.mark.slow
def test_m_and_v_share_a_hash_and_round_by_other_halves_of_it():
    of, x = averages(b2=0.999, mu="bfloat16", nu="bfloat16"), jnp.full(4096, 1 + 2.0**-9)
    zero = jnp.zeros(4096, "bfloat16")
    *_, mu, nu = of.step(x, zero, zero, Walk(np.uint32(0), jnp.uint32(1)))
    up = [np.asarray(kept).astype(np.float32) > np.float32(np.min(kept)) for kept in (mu, nu)]
    assert 0 < up[0].mean() < 1
    assert 0 < up[1].mean() < 1
    assert (up[0] != up[1]).any()


def test_when_thresholds_are_drawn():
    assert not averages().draws
    assert averages(b2=0.999, nu="bfloat16").draws
    assert averages(b2=0.999999, precise=True).dithers_sum
    assert not averages(b2=0.999999).dithers_sum


def test_rates_that_round_to_one():
    with pytest.raises(ValueError, match=r"b2=0\.999999999 is 1 in float32"):
        check_rates(averages(b2=1 - 1e-9), jnp.zeros(3))
    check_rates(averages(b2=1 - 1e-9, precise=True), jnp.zeros(3))


STORED = {
    "float32": (None, jnp.zeros(3), jnp.zeros(3, "bfloat16")),
    "bfloat16": ("bfloat16", jnp.zeros(3, "bfloat16"), jnp.zeros(3)),
    "float16": ("float16", Float("float16").zeros(jnp.zeros(3), "float32", square=True), jnp.zeros(3)),
}


@pytest.mark.parametrize("name", STORED)
def test_v_that_another_storage_has_kept_is_refused(name):
    nu_dtype, right, wrong = STORED[name]
    check_storage(averages(nu=nu_dtype), {"w": right, "scalar": right if name != "float16" else jnp.zeros(())})
    with pytest.raises(TypeError, match=f"stored as {name} at w, got {wrong.dtype}"):
        check_storage(averages(nu=nu_dtype), {"w": wrong})
    check_storage(averages(nu=Int8()), {"w": wrong})  # its codes tell themselves
