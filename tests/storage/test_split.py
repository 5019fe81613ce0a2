import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamx.storage.split import bits_of, from_bits, join, nearest_even, split, widen

SPECIAL = [0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x3F808000, 0x3F818000, 0x3F807FFF, 0x7F7F7FFF, 0x00000001]


def patterns():
    """Every upper half, each with a few lower ones; without NaN and what rounds to infinity."""
    lower = np.asarray([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    bits = (np.arange(2**16, dtype=np.uint32)[:, None] << 16 | lower).ravel()
    bits = np.concatenate([bits, np.asarray(SPECIAL, np.uint32)])
    size = bits & 0x7FFFFFFF
    return jnp.asarray(bits[(size < 0x7F7F8000) | (size == 0x7F800000)])


def as_float(bits):
    return jax.lax.bitcast_convert_type(jnp.asarray(bits, jnp.uint32), jnp.float32)


def as_bits(x):
    return np.asarray(jax.lax.bitcast_convert_type(x, jnp.uint32))


def test_join_inverts_split_to_the_bit():
    bits = patterns()
    upper, lower = jax.jit(split)(as_float(bits))
    assert (upper.dtype, lower.dtype) == (jnp.bfloat16, jnp.uint16)
    np.testing.assert_array_equal(as_bits(jax.jit(join)(upper, lower)), bits)


def test_the_upper_half_is_the_nearest_ties_away_from_zero():
    x = np.asarray([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 1 + 2**-8 - 2**-20, 3.0], np.float32)
    np.testing.assert_array_equal(split(x)[0], np.asarray([1 + 2**-7, 1 + 2**-6, -1 - 2**-7, 1, 3], jnp.bfloat16))


def test_not_finite():
    upper, lower = split(jnp.asarray([np.nan, np.inf, -np.inf, 3.4e38], jnp.float32))
    np.testing.assert_array_equal(upper.astype(jnp.float32), [np.nan, np.inf, -np.inf, np.inf])
    assert np.isnan(join(upper, lower)[0])
    every_nan = as_float(np.asarray([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0xFFFF8000], np.uint32))
    assert np.isnan(np.asarray(split(every_nan)[0], np.float32)).all()
    assert np.isnan(np.asarray(from_bits(nearest_even(every_nan)), np.float32)).all()


def test_nearest_even_is_the_cast():
    x = as_float(patterns())
    np.testing.assert_array_equal(
        np.asarray(from_bits(nearest_even(x))).view(np.uint16), np.asarray(x).astype(jnp.bfloat16).view(np.uint16)
    )


def test_widen_is_exact():
    x = np.arange(2**16, dtype=np.uint16).view(jnp.bfloat16)
    np.testing.assert_array_equal(as_bits(widen(jnp.asarray(x))), np.arange(2**16, dtype=np.uint32) << 16)
    np.testing.assert_array_equal(bits_of(jnp.asarray(x)), np.arange(2**16, dtype=np.uint32) << 16)


@pytest.mark.parametrize("through", [from_bits, jax.jit(from_bits)], ids=["op by op", "compiled"])
def test_from_bits_inverts_bits_of(through):
    x = np.arange(2**16, dtype=np.uint16).view(jnp.bfloat16)
    numbers = ~np.isnan(x.astype(np.float32))  # of NaN only that it is one
    back = np.asarray(through(bits_of(jnp.asarray(x))))
    np.testing.assert_array_equal(back.view(np.uint16)[numbers], x.view(np.uint16)[numbers])
    assert np.isnan(back.astype(np.float32)[~numbers]).all()


def test_no_rounding_to_bfloat16_and_back_in_the_program():
    """A compiler may take such a pair out; integers it must leave. What `split` converts is rounded already."""
    programs = [
        jax.make_jaxpr(split)(1.0),
        jax.make_jaxpr(nearest_even)(1.0),
        jax.make_jaxpr(widen)(jnp.bfloat16(1)),
    ]
    for program in programs:
        assert "convert_element_type[new_dtype=float32" not in str(program)
    for program in programs[1:]:
        assert "convert_element_type[new_dtype=bfloat16" not in str(program)
