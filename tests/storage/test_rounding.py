import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from adamx.storage.rounding import sum_to_bfloat16, to_bfloat16, to_narrow

GRID = (np.arange(4096, dtype=np.uint64) * 2**20 + 2**19).astype(np.uint32)  # thresholds, evenly
NARROW = ["float16", "float8_e4m3fn", "float8_e5m2"]


def every(dtype):
    """All finite numbers of a dtype."""
    width = ml_dtypes.finfo(dtype).bits
    numbers = np.arange(2**width, dtype=f"uint{width}").view(dtype)
    with np.errstate(invalid="ignore"):
        return numbers[np.isfinite(numbers.astype(np.float32))]


def down(x, dtype):
    """The neighbour of x towards 0, and the next one away from it, in float64."""
    sizes = every(dtype).astype(np.float64)
    low = sizes[(sizes >= 0) & (sizes <= abs(x))].max()
    return np.sign(x) * low, np.sign(x) * sizes[sizes > low].min()


def rounded(x, dtype, bits, **kwargs):
    x = jnp.full(np.shape(bits), x, jnp.float32)
    bits = jnp.asarray(bits)
    held = to_bfloat16(x, bits, **kwargs) if dtype == "bfloat16" else to_narrow(x, dtype, bits, **kwargs)
    assert held.dtype == jnp.dtype(dtype)
    return np.asarray(held).astype(np.float64)


@pytest.mark.parametrize("dtype", ["bfloat16", *NARROW])
@pytest.mark.parametrize("x", [1.0, 1.001, 1.3, -2.7, 1.999, 0.0141, -77.1, 3e-3, 0.017])
def test_to_a_neighbour_and_right_on_average(dtype, x):
    x = float(np.float32(x))
    held, (low, high) = rounded(x, dtype, GRID), down(x, dtype)
    assert set(held) <= {low, high}
    np.testing.assert_allclose(held.mean(), x, atol=1.01 * abs(high - low) / len(GRID))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", NARROW)
def test_subnormals_are_right_on_average(dtype):
    smallest = float(ml_dtypes.finfo(dtype).smallest_subnormal)
    for units in (0.3, 1.6, -2.25):
        x = float(np.float32(units * smallest))
        np.testing.assert_allclose(rounded(x, dtype, GRID).mean(), x, atol=1.01 * smallest / len(GRID))


@pytest.mark.parametrize("dtype", ["bfloat16", *NARROW])
def test_up_where_the_fraction_exceeds_the_threshold(dtype):
    x = 1 + float(ml_dtypes.finfo(dtype).eps) / 4
    held = rounded(x, dtype, np.asarray([0, 2**30 - 2**17, 2**30, 2**32 - 1], np.uint32))
    np.testing.assert_array_equal(held > 1, [True, True, False, False])


@pytest.mark.parametrize("dtype", ["bfloat16", *NARROW])
@pytest.mark.parametrize("bits", [0, 2**32 - 1])
def test_what_fits_stays(dtype, bits):
    numbers = every(dtype)
    numbers = numbers[(np.abs(numbers.astype(np.float64)) >= 2.0**-126) | (numbers == 0)]
    wide = jnp.asarray(numbers.astype(np.float32))
    bits = jnp.full(wide.shape, bits, jnp.uint32)
    held = to_bfloat16(wide, bits) if dtype == "bfloat16" else to_narrow(wide, dtype, bits)
    np.testing.assert_array_equal(np.asarray(held).astype(np.float64), numbers.astype(np.float64))


@pytest.mark.parametrize("dtype", NARROW)
def test_what_a_number_stands_for_is_right_on_average(dtype):
    x = float(np.float32(2.3))
    held = rounded(x, dtype, GRID, read=jnp.square)
    assert set(held) <= set(down(x, dtype))
    np.testing.assert_allclose(np.square(held).mean(), x**2, rtol=1e-4)


@pytest.mark.parametrize("bits", [None, 0, 2**32 - 1])
def test_bfloat16_of_what_is_not_finite(bits):
    x = jnp.asarray([np.inf, -np.inf, np.nan, -np.nan], jnp.float32)
    x = x.at[3].set(jax.lax.bitcast_convert_type(jnp.uint32(0x7F800001), jnp.float32))  # a NaN in the lower bits alone
    held = to_bfloat16(x, None if bits is None else jnp.full(4, bits, jnp.uint32))
    np.testing.assert_array_equal(np.asarray(held, np.float32), [np.inf, -np.inf, np.nan, np.nan])


@pytest.mark.parametrize("dtype", ["bfloat16", *NARROW])
def test_a_square_that_is_not_zero_is_not_kept_as_zero(dtype):
    tiny = 1e-41 if dtype == "bfloat16" else 1e-9  # below half of the smallest number
    for bits in (0, 2**32 - 1):
        held = rounded(tiny, dtype, np.full(3, bits, np.uint32), square=True)
        assert (held > 0).all()
        assert (rounded(0.0, dtype, np.full(3, bits, np.uint32), square=True) == 0).all()


@pytest.mark.parametrize("dtype", ["bfloat16", *NARROW])
def test_without_bits_to_nearest(dtype):
    x = jnp.linspace(-3, 3, 1001)
    held = to_bfloat16(x, None) if dtype == "bfloat16" else to_narrow(x, dtype, None)
    np.testing.assert_array_equal(np.asarray(held, np.float32), np.asarray(np.asarray(x).astype(dtype), np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("y", [1e-12, -1e-12, 3e-9, -3e-9, 1e-5, -1e-5, 0.3, -0.3])
@pytest.mark.parametrize("x", [1.0, 1.0078125, -1.5, 255.0])
def test_a_sum_is_right_on_average_to_the_last_bit_of_its_addend(x, y):
    bits = jnp.asarray((np.arange(2**22, dtype=np.uint64) * 2**10 + 2**9).astype(np.uint32))
    moved = sum_to_bfloat16(jnp.full(bits.shape, x), jnp.full(bits.shape, y), bits)
    exact = float(np.float32(x)) + float(np.float32(y))
    change = np.asarray(moved).astype(np.float64) - exact
    assert np.abs(change).max() <= 2.0 ** (np.floor(np.log2(abs(x))) - 7)
    np.testing.assert_allclose(change.mean(), 0, atol=abs(x) * 2.0**-8 * 2.0**-21)


@pytest.mark.slow
def test_a_sum_that_is_not_finite_or_zero():
    x = jnp.asarray([np.inf, -np.inf, np.nan, 1.0, 3e38, -0.0, 1.0, 1.0], jnp.float32)
    y = jnp.asarray([1.0, 1.0, 1.0, np.nan, 3e38, 0.0, -1.0, np.inf], jnp.float32)
    moved = sum_to_bfloat16(x, y, jnp.full(8, 2**31, jnp.uint32))
    np.testing.assert_array_equal(moved.astype(jnp.float32), [np.inf, -np.inf, np.nan, np.nan, np.inf, 0, 0, np.inf])
