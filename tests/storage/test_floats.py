import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from adamx.storage import Float, Quantized
from adamx.storage.dither import thresholds

FLOAT8 = ["float8_e4m3fn", "float8_e5m2"]
NARROW = ["float32", "bfloat16", "float16", *FLOAT8]
numbers = {"float16": 1, **dict.fromkeys(FLOAT8, 2)}.get  # of a block


@pytest.mark.parametrize("parameter", NARROW)
@pytest.mark.parametrize("stored", [None, "float32", "bfloat16"])
def test_zeros_have_the_shape_of_the_parameter_and_the_dtype_of_the_storage(parameter, stored):
    codec = Float(stored and jnp.dtype(stored))
    for like in (jnp.ones((2, 3), parameter), np.ones((2, 3), parameter), jax.ShapeDtypeStruct((2, 3), parameter)):
        for square in (False, True):
            zeros = codec.zeros(like, like.dtype, square=square)
            assert (zeros.shape, zeros.dtype, zeros.weak_type) == ((2, 3), jnp.dtype(stored or "float32"), False)
            np.testing.assert_array_equal(np.asarray(zeros, np.float32), 0)


def test_zeros_of_a_python_float_are_not_weak():
    zeros = Float().zeros(1.0, jnp.float32, square=False)
    assert (zeros.shape, zeros.dtype, zeros.weak_type) == ((), jnp.float32, False)


@pytest.mark.parametrize(("dtype", "mu"), [("float64", "float32"), ("complex128", "complex64")])
def test_wide_numpy_parameters_without_x64_get_narrow_moments_in_silence(dtype, mu):
    state = adamx.scale_by_moments().init(np.ones(3, dtype))
    assert (state.mu.dtype, state.nu.dtype) == (jnp.dtype(mu), jnp.float32)


@pytest.mark.parametrize(
    ("parameter", "stored", "mu", "nu"),
    [
        ("complex64", None, "complex64", "float32"),
        ("complex128", None, "complex128", "float64"),
        ("complex64", "float64", "complex128", "float64"),
        ("complex64", "float32", "complex64", "float32"),
        ("complex128", "float32", "complex64", "float32"),
        ("float64", None, "float64", "float64"),
        ("float64", "bfloat16", "bfloat16", "bfloat16"),
    ],
)
def test_wide_and_complex_moments(parameter, stored, mu, nu, x64):
    codec = Float(stored and jnp.dtype(stored))
    like = jnp.ones(3, parameter)
    assert codec.zeros(like, like.dtype, square=False).dtype == jnp.dtype(mu)
    assert codec.zeros(like, like.dtype, square=True).dtype == jnp.dtype(nu)


@pytest.mark.parametrize("stored", ["bfloat16", "float16"])
def test_a_complex_moment_in_half_precision_is_refused_with_the_way_out(stored):
    tx = adamx.adam(1e-3, b1=0.5, mu_dtype=stored, nu_dtype=stored)
    with pytest.raises(TypeError, match=rf"complex .* cannot be stored as {stored}.*mu_dtype") as caught:
        tx.init({"encoder": {"bias": jnp.ones(2, jnp.complex64)}})
    assert "encoder/bias" in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("stored", NARROW)
def test_encode_rounds_to_nearest_and_decode_is_exact(stored):
    moment = jnp.linspace(-2, 2, 101)
    codec = Float(jnp.dtype(stored))
    like = jnp.zeros_like(moment, stored)
    held = codec.encode(moment, like, None, square=False)
    assert held.dtype == jnp.dtype(stored)
    back = codec.decode(held, jnp.float32)
    np.testing.assert_array_equal(back, np.asarray(moment).astype(jnp.dtype(stored)).astype(np.float32))
    again = codec.encode(back, like, None, square=False)
    np.testing.assert_array_equal(np.asarray(again, np.float32), np.asarray(held, np.float32))


def test_numpy_arrays_decode():
    decoded = Float().decode(np.ones(3, np.float32), jnp.float32)
    assert isinstance(decoded, jax.Array)
    np.testing.assert_array_equal(decoded, 1)


# Under a constant gradient the direction is 1, whatever stores the moments.
STORED = {
    "nu bfloat16": {"nu_dtype": "bfloat16"},
    "nu bfloat16, numpy b2": {"nu_dtype": "bfloat16", "b2": np.float32(0.999)},
    "nu bfloat16, jax b2": {"nu_dtype": "bfloat16", "b2": jnp.float32(0.999)},
    "nu float16": {"nu_dtype": "float16"},
    "nu float8": {"nu_dtype": "float8_e5m2", "b2": 0.9},
    "mu bfloat16, b1 near 1": {"mu_dtype": "bfloat16", "b1": 0.999},
    "mu bfloat16, jax b1 near 1": {"mu_dtype": "bfloat16", "b1": jnp.float32(0.999)},
    "both float8": {"mu_dtype": "float8_e4m3fn", "nu_dtype": "float8_e4m3fn"},
    "mu bfloat16": {"mu_dtype": "bfloat16"},
    "both float16": {"mu_dtype": "float16", "nu_dtype": "float16"},
    "both bfloat16": {"mu_dtype": "bfloat16", "nu_dtype": "bfloat16"},
}


@pytest.mark.parametrize("arguments", STORED.values(), ids=STORED.keys())
def test_a_stored_moment_tracks_a_constant_gradient(arguments):
    g = jnp.tile(jnp.asarray([1.0, 1e-2, 1e-3, 300.0, 1e4])[:, None], (1, 64))
    traced = {k: arguments[k] for k in ("b1", "b2") if k in arguments and isinstance(arguments[k], jax.Array)}

    @jax.jit
    def run(traced):
        tx = adamx.scale_by_adam(**arguments | traced)
        return jax.lax.scan(lambda s, _: tx.update(g, s)[::-1], tx.init(g), length=2000)[1]

    directions = np.asarray(run(traced))
    float8 = "float8" in str(arguments)
    np.testing.assert_allclose(directions[1000:].mean(axis=(0, 2)), 1, atol=0.1 if float8 else 0.03)
    assert np.abs(directions).max() < (2 if float8 else 1.25)


@pytest.mark.slow
@pytest.mark.parametrize("stored", ["float16", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("size", [1e-30, 1e-12, 1.0, 1e12, 1e37])
def test_squares_in_narrow_dtypes_neither_overflow_nor_vanish(stored, size):
    codec = Float(jnp.dtype(stored), stochastic=True)
    v = jnp.asarray(np.random.default_rng(0).standard_normal((3, 100)) ** 2 * size, jnp.float32)
    like = codec.zeros(v, v.dtype, square=True)
    assert isinstance(like, Quantized)
    assert (like.codes.dtype, like.codes.shape) == (jnp.dtype(stored), (3, 100))
    assert like.scales.shape == (3, 2, numbers(stored))
    held = codec.encode(v, like, thresholds(v.shape, np.uint32(1), np.uint32(1)), square=True)
    assert jax.tree.map(jax.typeof, held) == jax.tree.map(jax.typeof, like)
    back = np.asarray(codec.decode(held, jnp.float32))
    eps = float(jnp.finfo(stored).eps)
    large = np.asarray(v) > np.asarray(v).max() * 2.0**-6
    np.testing.assert_allclose(back[large], np.asarray(v)[large], rtol=1.01 * eps)
    assert (back > 0).all()
    np.testing.assert_allclose(back, v, rtol=1.01 * eps, atol=float(v.max()) * 2.0**-8)


@pytest.mark.slow
@pytest.mark.parametrize("square", [False, True], ids=["m", "v"])
@pytest.mark.parametrize("stored", ["float16", "float8_e4m3fn", "float8_e5m2"])
def test_a_block_of_any_size_of_float32_is_held_to_the_precision_of_its_dtype(stored, square):
    dtype, sizes = jnp.dtype(stored), np.ldexp(np.linspace(1, 2, 64), np.arange(-126, 128)[:, None])
    codec = Float(dtype, stochastic=True)
    like = Quantized(jnp.zeros(sizes.shape, dtype), jnp.zeros((len(sizes), 1, numbers(stored)), jnp.bfloat16))
    x = np.minimum(sizes, codec.largest(like)).astype(np.float32)
    bits = thresholds(x.shape, np.uint32(1), np.uint32(1))
    back = codec.decode(codec.encode(jnp.asarray(x), like, bits, square=square), jnp.float32)
    assert (1 if "float8" in stored else 1.74) * 2.0**127 <= codec.largest(like) == np.max(back)
    np.testing.assert_allclose(back, x, rtol=1.01 * float(jnp.finfo(dtype).eps))


@pytest.mark.parametrize("stored", ["float16", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("square", [False, True], ids=["m", "v"])
def test_both_moments_share_scales_and_scalars_stay_float32(square, stored):
    codec = Float(stored)
    assert isinstance(codec.zeros(jnp.zeros(3), jnp.float32, square=square), Quantized)
    assert codec.zeros(jnp.zeros(()), jnp.float32, square=square).dtype == jnp.float32


@pytest.mark.parametrize("square", [False, True], ids=["m", "v"])
@pytest.mark.parametrize("stored", FLOAT8)
def test_an_outlier_in_float8_leaves_its_neighbours_as_they_are(stored, square):
    codec = Float(jnp.dtype(stored))
    x = np.linspace(1, 2, 64, dtype=np.float32)
    like = codec.zeros(x, x.dtype, square=square)
    for outlier in (3.0, 1e10, 1e30):
        x[17] = outlier
        back = codec.decode(codec.encode(jnp.asarray(x), like, None, square=square), jnp.float32)
        np.testing.assert_allclose(back, x, rtol=0.0375)
        np.testing.assert_allclose(back[17], outlier, rtol=2.0**-8)


@pytest.mark.parametrize("stored", FLOAT8)
def test_of_float8_the_largest_is_dithered_too(stored):
    codec, x = Float(jnp.dtype(stored), stochastic=True), jnp.full((1, 64), 1 + 2.0**-9)
    like = codec.zeros(x, x.dtype, square=True)
    bits = jax.vmap(lambda t: thresholds(x.shape, np.uint32(1), t))(jnp.arange(400, dtype=jnp.uint32))
    held = jax.vmap(lambda b: codec.decode(codec.encode(x, like, b, square=True), jnp.float32))(bits)
    assert set(np.unique(held)) == {1.0, 1 + 2.0**-7}
    np.testing.assert_allclose(np.mean(held), 1 + 2.0**-9, atol=2.0**-7 / 50)


@pytest.mark.parametrize("stored", FLOAT8)
@pytest.mark.parametrize("x", [0.011, 0.3, 1.03, 1.61])
def test_what_is_read_from_float8_is_right_on_average_and_never_0(stored, x):
    codec = Float(jnp.dtype(stored), stochastic=True)
    v = jnp.tile(jnp.asarray([x, 1.0, 3.0, 1e-30, 0.0]), (2048, 1))
    like = codec.zeros(v, v.dtype, square=True)
    bits = jnp.broadcast_to((jnp.arange(2048, dtype=jnp.uint32) << 21)[:, None], v.shape)
    held = codec.decode(codec.encode(v, like, bits, square=True), jnp.float32)
    held = np.asarray(held, np.float64)
    np.testing.assert_allclose(held.mean(axis=0)[[0, 4]], [x, 0], rtol=2e-4)
    assert (held[:, 3] > 0).all()


@pytest.mark.parametrize("stored", FLOAT8)
def test_float8_with_one_number_a_block_is_refused_and_carried(stored):
    tx, g = adamx.adam(1e-3, mu_dtype=stored, nu_dtype=stored), jnp.ones((2, 64))
    old = Quantized(jnp.full(g.shape, 1.5, stored), jnp.full((2, 1, 1), 2.0, jnp.bfloat16))
    state = (adamx.MomentsState(jnp.int32(5), old, old), *tx.init(g)[1:])
    with pytest.raises(TypeError, match=rf"{stored} with two numbers for each block, got 1 .*restore_as"):
        tx.update(g, state)
    carried = adamx.interop.restore_as(tx, state, g)
    np.testing.assert_array_equal(Float(stored).decode(carried[0].nu, jnp.float32), 3)
    tx.update(g, carried)


BETAS = [0.0, 0.5, 0.9, 0.999, 0.999999]


def extremes(dtype):
    info = jnp.finfo(dtype)
    sizes = [s for s in (float(info.max), float(info.max) / 2, 1e30, 2e19, 1.9e19) if s <= float(info.max)]
    small = [float(info.tiny), float(info.smallest_subnormal), 0.0]
    values = np.asarray([sign * size for size in sizes + small for sign in (1, -1)])
    return jnp.asarray(values * (1 + 0j) if jnp.issubdtype(dtype, jnp.complexfloating) else values).astype(dtype)


EXTREMES = {dtype: extremes(dtype) for dtype in [*NARROW, "complex64"]}


@pytest.mark.slow
@pytest.mark.parametrize("precise", [False, True], ids=["plain", "precise"])
@pytest.mark.parametrize("b2", BETAS)
@pytest.mark.parametrize("b1", BETAS)
def test_no_finite_gradient_makes_an_infinite_state_or_a_long_step(b1, b2, precise):
    tx = adamx.adam(1.0, b1, b2, precise=precise)
    state, longest = tx.init(EXTREMES), 2.01 / (1 if b2 else 1 - b1)  # exact Adam: 1 under a constant gradient
    for _ in range(3):
        updates, state = tx.update(EXTREMES, state)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))
        for u in updates.values():
            assert np.abs(np.asarray(u, complex)).max() <= longest


def test_no_finite_float64_gradient_makes_an_infinite_state_or_a_long_step(x64):
    tx = adamx.adam(1.0)
    gradients = extremes("float64")
    updates, state = tx.update(gradients, tx.init(gradients))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))
    assert np.abs(updates).max() <= 2


@pytest.mark.parametrize("precise", [False, True], ids=["plain", "precise"])
@pytest.mark.parametrize("b2", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("large", [1e4, 1e9, 1e18])
def test_a_small_decay_rate_forgets_a_large_gradient(large, b2, precise):
    tx = adamx.adam(1.0, 0.0, b2, precise=precise)
    _, state = tx.update(jnp.asarray([large]), tx.init(jnp.zeros(1)))
    updates, _ = tx.update(jnp.asarray([1.0]), state)
    exact = -1 / np.sqrt((b2 * (1 - b2) * large**2 + (1 - b2)) / (1 - b2**2))
    np.testing.assert_allclose(updates, exact, rtol=1e-5)
