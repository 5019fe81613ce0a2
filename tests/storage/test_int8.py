import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from adamx.storage import Int8, Quantized
from adamx.storage.dither import thresholds

CODEC = Int8(block_size=8, min_size=0)
SALT = np.uint32(12345)


@functools.partial(jax.jit, static_argnums=0)
def bits(shape, step=0):
    return thresholds(shape, SALT, step)


@functools.partial(jax.jit, static_argnames=("codec", "square"))
def encode_and_decode(codec, x, like, random, square):
    stored = codec.encode(x, like, random, square=square)
    return stored, codec.decode(stored, jnp.float32)


def held(x, square, step=0, codec=CODEC):
    """A moment, stored and read back."""
    x = jnp.asarray(x, jnp.float32)
    like = codec.zeros(x, x.dtype, square=square)
    assert isinstance(like, Quantized)
    stored, back = encode_and_decode(codec, x, like, bits(x.shape, step), square)
    assert jax.tree.map(jax.typeof, stored) == jax.tree.map(jax.typeof, like)
    return stored, np.asarray(back, np.float64)


def moment(shape, square, seed=0):
    x = np.random.default_rng(seed).standard_normal(shape)
    return (x * x if square else x).astype(np.float32)


def magnitude(k, square):
    """What a code stands for in units of the scale, in float64: digits of a power of two, less 1."""
    k = np.asarray(k, np.int64)
    four, five = (2.0 ** (j // n) * (1 + j % n / n) for j, n in ((k, 16), (k + 160 * square, 32)))
    return (np.where(k < 160, four, five) if square else five) - 1


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("shape", [(64, 16), (3, 5, 24), (4, 21), (7, 17)], ids=str)
def test_within_the_distance_of_two_codes(shape, square):
    x = moment(shape, square)
    stored, back = held(x, square)
    assert stored.codes.shape == shape
    assert stored.codes.dtype == (jnp.uint8 if square else jnp.int8)
    assert stored.scales.shape == (*shape[:-1], -(-shape[-1] // 8), 2)
    k = np.abs(np.asarray(stored.codes, np.int64))
    scale = np.repeat(np.asarray(stored.scales[..., 0], np.float64), 8, axis=-1)[..., : shape[-1]]
    gap = (magnitude(k + 1, square) - magnitude(np.maximum(k - 1, 0), square)) * scale
    floor = square & (np.asarray(x) < magnitude(8, square) * scale)
    assert (np.abs(back - x)[~floor] <= gap[~floor]).all()
    largest = np.abs(x) == np.repeat(np.asarray(stored.scales[..., 1]), 8, axis=-1)[..., : shape[-1]]
    np.testing.assert_array_equal(back[largest], x[largest])


@pytest.mark.slow
@pytest.mark.parametrize("square", [False, True])
def test_right_on_average(square):
    x = moment((16, 16), square) + (0.05 if square else 0.0)
    mean = np.mean([held(x, square, step)[1] for step in range(512)], axis=0)
    once = np.abs(held(x, square)[1] - x)
    np.testing.assert_allclose(mean, x, rtol=2e-3, atol=3e-4 * x.max())
    assert np.abs(mean - x).mean() < once.mean() / 20


@pytest.mark.slow
@pytest.mark.parametrize(("square", "y", "code"), [(False, 1, 32), (False, 7, 96), (True, 15, 64), (True, 4095, 224)])
def test_up_where_the_fraction_exceeds_the_threshold(square, y, code):
    gap = magnitude(code + 1, square) - magnitude(code, square)
    assert magnitude(code, square) == y
    x = jnp.asarray([[y + 0.488 * gap, magnitude(254 if square else 126, square), 1e6] + [0.0] * 13])
    like = CODEC.zeros(x, x.dtype, square=square)
    for threshold, up in ((0, 1), (2**30, 1), (2**31, 0), (2**32 - 1, 0)):
        stored = CODEC.encode(x, like, jnp.full(x.shape, threshold, jnp.uint32), square=square)
        np.testing.assert_allclose(stored.scales[0, 0, 0], 1, rtol=1e-6)
        np.testing.assert_array_equal(stored.codes[0, [0, 2]], [code + up, 255 if square else 127])


@pytest.mark.slow
@pytest.mark.parametrize("square", [False, True])
def test_the_codes_are_those_of_exact_arithmetic(square):
    """The rule with exact fractions of z, against which no order of operations can differ."""
    x = moment((512, 16), square, seed=3)
    x[7] *= 1e-37
    x = np.where(np.abs(x) < 2.0**-126, 0, x)  # XLA on CPU reads subnormals as 0
    stored, _ = held(x, square, codec=Int8(block_size=16, min_size=0))
    threshold = (np.asarray(bits(x.shape)) >> 13) * 2.0**-19
    highest, f32 = 255 if square else 127, np.float32
    size, top = np.abs(x), np.abs(x).max(-1, keepdims=True)
    rest = np.where(size >= top * f32(1 - 2.0**-21), 0, size).max(-1, keepdims=True)
    most, second = magnitude(highest, square), magnitude(highest - 1, square)
    scale = np.minimum(top * f32((1 - 2.0**-20) / most), rest * f32((1 + 2.0**-21) / second))
    scale = np.maximum(scale, f32(2.0**-125))
    z = np.minimum(size * (1 / scale), f32(most)) + f32(1)
    codes = np.arange(highest + 2)
    low = np.searchsorted(magnitude(codes, square) + 1, z.astype(np.float64), side="right") - 1
    lower, upper = (magnitude(k, square) + 1 for k in (low, low + 1))
    code = low + ((z - lower) / (upper - lower) > threshold)
    code = np.where(x == 0, 0, np.maximum(code, 8 if square else 0)) * np.sign(x)
    np.testing.assert_array_equal(stored.scales[..., 0, :1], scale)
    np.testing.assert_array_equal(stored.codes, code)


def test_an_outlier_does_not_take_the_codes_of_its_neighbours():
    x = moment((64, 16), False)
    x[:, [3, 12]] = 1e8
    _, back = held(x, False)
    np.testing.assert_array_equal(back[:, [3, 12]], 1e8)
    others = np.delete(np.arange(16), [3, 12])
    error = np.abs(back - x)[:, others] / np.abs(x[:, others]).max(-1, keepdims=True)
    assert error.max() < 0.25 / 14.5 + 1e-6  # two codes at the upper end


@pytest.mark.slow
@pytest.mark.parametrize("square", [False, True])
def test_no_other_element_takes_the_code_of_an_outlier(square):
    """However the second largest is rounded: one that took the largest's number would jump."""
    x = moment((4096, 16), square)
    x[:, [3, 12]] = 1e8
    like = CODEC.zeros(x, x.dtype, square=square)
    stored = CODEC.encode(jnp.asarray(x), like, jnp.zeros(x.shape, jnp.uint32), square=square)
    np.testing.assert_array_equal(np.abs(np.asarray(stored.codes, int)) == (255 if square else 127), x == 1e8)


def test_a_block_that_decays_keeps_its_codes():
    x = moment((16, 16), True)
    stored, back = held(x, True)
    for step in range(1, 50):
        back = np.float32(0.999) * back.astype(np.float32)
        again, back = held(back, True, step)
        assert (np.asarray(again.codes) == np.asarray(stored.codes)).mean() > 0.99


@pytest.mark.parametrize("exponent", [-44, -38, -30, -20, 0, 20, 37])
def test_a_square_that_is_not_zero_is_not_kept_as_zero(exponent):
    x = np.asarray([[0.0, 1, 1e-4, 1e-8, 1e-16, 1e-30, 1e-38, 0.3] * 2], np.float32) * np.float32(10.0**exponent)
    flushed = np.where(x < 2.0**-126, 0, x)  # XLA on CPU reads subnormals as 0
    _, back = held(x, True)
    assert np.isfinite(back).all()
    assert ((back > 0) == (flushed > 0))[flushed == x].all()
    assert (back >= flushed * 0.8).all()  # never much smaller: a step would explode


def test_a_square_at_the_end_of_the_range_is_not_kept_as_zero():
    """Half of the least scale is the least normal number: a smaller one would be 0."""
    x = 2.0 ** np.random.default_rng(0).uniform(-126, -110, (64, 16)).astype(np.float32)
    _, back = held(x, True)
    assert (back >= 0.8 * x).all()


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("x", [0.0, 3e38, 2e-34, 1.0])
def test_equal_elements_are_exact(x, square):
    _, back = held(np.full((2, 16), x), square)
    np.testing.assert_array_equal(back, np.float32(x))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_shows_in_its_block_alone(bad):
    x = moment((1, 24), True)
    _, before = held(x, True)
    x[0, 20] = bad
    _, back = held(x, True)
    assert not np.isfinite(back[0, 20])
    np.testing.assert_array_equal(back[0, :16], before[0, :16])


@pytest.mark.slow
def test_the_same_under_jit_and_vmap():
    x = jnp.asarray(moment((5, 4, 16), True))
    like, random = CODEC.zeros(x, x.dtype, square=True), bits(x.shape)

    def encode(x, like, random):
        return CODEC.encode(x, like, random, square=True)

    expected = encode(x, like, random)
    for program in (jax.jit(encode), jax.vmap(encode), jax.jit(jax.vmap(encode))):
        jax.tree.map(np.testing.assert_array_equal, program(x, like, random), expected)


@pytest.mark.parametrize(
    ("codec", "shape", "dtype", "where", "quantized"),
    [
        (Int8(min_size=4096), (64, 64), "float32", "w", True),
        (Int8(min_size=4096), (64, 64), "float64", "w", True),
        (Int8(min_size=4096), (64, 64), "bfloat16", "w", True),
        (Int8(min_size=4096), (63, 64), "float32", "w", False),
        (Int8(min_size=4096), (4096,), "float32", "w", True),
        (Int8(min_size=4096), (4096, 8), "float32", "w", False),
        (Int8(min_size=4096), (4096, 16), "float32", "w", True),
        (Int8(min_size=0), (), "float32", "w", False),
        (Int8(min_size=4096, exclude=("norm", "^embed")), (64, 64), "float32", "block/norm/scale", False),
        (Int8(min_size=4096, exclude=("norm", "^embed")), (64, 64), "float32", "embed/table", False),
        (Int8(min_size=4096, exclude=("norm", "^embed")), (64, 64), "float32", "my/embed", True),
        (Int8(min_size=4096), (64, 64), "complex64", "w", False),
    ],
)
def test_which_leaves_are_quantized(codec, shape, dtype, where, quantized, x64):
    like = jax.ShapeDtypeStruct(shape, dtype)
    mu, nu = (codec.zeros(like, jnp.dtype(dtype), square=square, where=where) for square in (False, True))
    assert isinstance(mu, Quantized) == quantized
    assert isinstance(nu, Quantized) == (quantized or "complex" in dtype)
    if not quantized and dtype == "float32":
        assert (mu.dtype, nu.dtype) == (jnp.float32, jnp.float32)


@pytest.mark.parametrize(
    ("codec", "error", "message"),
    [
        (Int8(block_size=1, min_size=4096), ValueError, "block_size must be at least 2, got 1"),
        (Int8(block_size=24, min_size=4096), ValueError, "block_size must be a power of two, got 24"),
        (Int8(block_size=32.0), TypeError, "block_size must be an integer"),
        (Int8(min_size=-1), ValueError, "min_size must be at least 0"),
        (Int8(exclude="norm"), TypeError, "exclude must be a tuple of regular expressions, got 'norm'"),
        (Int8(min_size=4096, exclude=("[",)), ValueError, r"exclude: '\[' is not a regular expression"),
        (Int8, TypeError, r"got the class Int8: pass Int8\(\)"),
    ],
)
def test_wrong_arguments_are_named(codec, error, message):
    with pytest.raises(error, match=f"nu_dtype.*{message}"):
        adamx.adam(1e-3, nu_dtype=codec)
