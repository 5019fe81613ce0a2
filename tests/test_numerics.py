import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamx import numerics

FLOATS = [jnp.float16, jnp.bfloat16, jnp.float8_e4m3fn, jnp.float8_e5m2, jnp.float32]


@pytest.mark.parametrize("dtype", FLOATS)
def test_narrow_types_compute_in_float32(dtype):
    assert numerics.compute_dtype(dtype) == jnp.float32
    assert numerics.compute_dtype(dtype, jnp.complex64) == jnp.complex64


def test_wide_types_compute_in_64_bits():
    assert numerics.compute_dtype(jnp.float32, jnp.float64) == jnp.float64
    assert numerics.compute_dtype(jnp.complex64, jnp.float64) == jnp.complex128
    assert numerics.compute_dtype(jnp.bfloat16, jnp.complex128) == jnp.complex128


def test_real_dtype():
    assert numerics.real_dtype(jnp.complex64) == jnp.float32
    assert numerics.real_dtype(jnp.complex128) == jnp.float64
    assert numerics.real_dtype(jnp.bfloat16) == jnp.bfloat16


@pytest.mark.parametrize("precise", [False, True])
def test_ema_worked_example(precise):
    assert numerics.ema(0.2, jnp.float32(0), jnp.float32(10), precise=precise) == 8


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.999, 0.999999])
def test_precise_ema_keeps_its_fixed_point(decay):
    x = jnp.float32(0.37)
    assert numerics.ema(decay, x, x, precise=True) == x


def test_precise_ema_does_not_lose_a_small_value_behind_a_large_average():
    assert numerics.ema(0.0, jnp.float32(1e8), jnp.float32(0.37), precise=True) == np.float32(0.37)


def test_plain_ema_drifts_where_the_precise_one_does_not():
    x = jnp.float32(0.37)
    step = jax.jit(numerics.ema, static_argnames=("decay", "precise"))
    plain = precise = x
    for _ in range(2000):
        plain, precise = step(0.999999, plain, x), step(0.999999, precise, x, precise=True)
    assert precise == x
    assert abs(plain / x - 1) > 1e-6


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999, 0.999999])
@pytest.mark.parametrize("t", [1, 2, 10, 1000, 2**24 + 1, 2**31 - 1])
def test_precise_weight(decay, t):
    got = jax.jit(numerics.ema_weight, static_argnames=("decay", "precise"))(decay, jnp.int32(t), precise=True)
    exact = -np.expm1(t * np.log(decay)) if decay else 1.0
    assert abs(float(got) / exact - 1) < 2e-7


def test_precise_weight_refuses_a_rounded_decay():
    with pytest.raises(TypeError, match="Python float"):
        numerics.ema_weight(jnp.float32(0.9), jnp.int32(1), precise=True)


def test_square():
    assert numerics.square(jnp.float32(-3)) == 9
    squared = numerics.square(jnp.complex64(3 - 4j))
    assert squared == 25
    assert squared.dtype == jnp.float32


@pytest.mark.parametrize("stored", [jnp.float32, jnp.float16])
def test_bound_first_moment(stored):
    limit = min(2.0**65, float(jnp.finfo(stored).max))
    m = jnp.asarray([0.0, 1.0, -1e4, limit, 2 * limit, -1e38, np.inf, np.nan], jnp.float32)
    bounded = np.asarray(numerics.bound_first_moment(m, float(jnp.finfo(stored).max)))
    np.testing.assert_array_equal(bounded[:4], m[:4])
    np.testing.assert_allclose(bounded[4:6], [limit, -limit], rtol=1e-6)
    assert np.isnan(bounded[6:]).all()


def test_bound_first_moment_of_a_complex_one_part_by_part():
    m = jnp.asarray([3e30 + 4e30j, 3 + 4j], jnp.complex64)
    bounded = np.asarray(numerics.bound_first_moment(m, 3e38))
    np.testing.assert_allclose(bounded[0], 2.0**65 * (1 + 1j), rtol=1e-6)
    assert bounded[1] == 3 + 4j


def test_clamp_first_moment():
    m = jnp.asarray([1.0, 1e38, -np.inf, np.nan], jnp.float32)
    np.testing.assert_array_equal(numerics.clamp_first_moment(m), [1.0, 2.0**65, -(2.0**65), np.nan])


@pytest.mark.parametrize("stored", [jnp.float32, jnp.float16])
def test_saturate_second_moment(stored):
    largest = float(jnp.finfo(stored).max)
    v = jnp.asarray([0.0, 1.0, largest, np.inf, np.nan], jnp.float32)
    np.testing.assert_array_equal(numerics.saturate_second_moment(v, largest), [0.0, 1.0, largest, largest, np.nan])


@pytest.mark.slow
def test_root_is_the_root_and_its_slope_is_finite():
    x = jnp.asarray([0.0, 1e-30, 4.0])
    np.testing.assert_array_equal(numerics.root(x), jnp.sqrt(x))
    slope = jax.vmap(jax.grad(numerics.root))(x)
    np.testing.assert_allclose(slope, [0.0, 0.5e15, 0.25], rtol=1e-6)
    assert np.isfinite(jax.vmap(jax.grad(jax.grad(numerics.root)))(jnp.asarray([0.0, 4.0]))).all()


def test_divide_takes_complex_parts_one_by_one():
    assert numerics.divide(jnp.complex64(6 - 2j), jnp.float32(2)) == 3 - 1j


@pytest.mark.parametrize("eps", [0.0, 1e-60, 1e-40, jnp.float32(0)])
def test_direction_of_nothing_is_zero(eps):
    assert numerics.direction(jnp.float32(0), jnp.float32(0), eps, 0.0) == 0


def test_direction():
    np.testing.assert_allclose(numerics.direction(jnp.float32(6), jnp.float32(9), 1.0, 0.0), 1.5)
    np.testing.assert_allclose(numerics.direction(jnp.float32(6), jnp.float32(5), 1.0, 4.0), 1.5)


def test_ulp_is_the_distance_to_the_next_number():
    x = np.asarray([1.0, 1.5, 1.9999999, 2.0, -3.0, 1e30, 2e-38, 0.0], np.float32)
    expected = [float(np.spacing(np.abs(value))) if value else 0.0 for value in x]
    np.testing.assert_array_equal(numerics.ulp(jnp.asarray(x))[:6], expected[:6])
    assert numerics.ulp(jnp.float32(0)) == 0


@pytest.mark.parametrize("x", [1.02, 1.3, 0.9, 7.0])
def test_a_dithered_average_is_right_on_average(x):
    thresholds = jnp.asarray((np.arange(4096) + 0.5) / 4096, jnp.float32)
    moved = numerics.ema(0.999999, jnp.full(4096, 1.25), jnp.full(4096, x), precise=True, threshold=thresholds)
    exact = 1.25 + 1e-6 * (float(np.float32(x)) - 1.25)
    np.testing.assert_allclose(np.mean(np.asarray(moved, np.float64)) - 1.25, exact - 1.25, rtol=1e-3)


@pytest.mark.parametrize(("decay", "needs"), [(0.999, False), (0.9999, False), (0.99995, True), (0.999999, True)])
def test_which_averages_need_dither(decay, needs):
    assert numerics.needs_dither(decay) == needs


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float8_e4m3fn", "complex64"])
@pytest.mark.parametrize("fault", [np.nan, np.inf, -np.inf, None])
@pytest.mark.parametrize("size", [100, 100_000])  # the maximum of many elements drops NaN in XLA:CPU
def test_one_element_tells(size, dtype, fault):
    if dtype == "float8_e4m3fn" and fault in (np.inf, -np.inf):
        fault = np.nan  # it has no infinity
    x = np.ones(size, np.complex64 if dtype == "complex64" else np.float32)
    x[7:50] = jnp.finfo(dtype).max
    if fault is not None:
        x[93] = complex(0, fault) if dtype == "complex64" else fault
    assert bool(numerics.is_finite(jnp.asarray(x).astype(dtype))) == (fault is None)


def test_the_largest_complex_numbers_are_finite():
    assert numerics.is_finite(jnp.asarray([3e38 + 3e38j]))


def test_empty_leaves_and_python_numbers():
    assert numerics.is_finite(jnp.ones((0, 3)))
    assert numerics.is_finite(1.0)


@pytest.mark.skipif(jax.__version_info__ < (0, 7), reason="XLA of jax 0.6 writes the magnitudes to memory first")
def test_a_faulty_step_costs_no_array_of_answers():
    x = jnp.ones(2**16)
    compiled = jax.jit(numerics.is_finite).lower(x).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 1024
