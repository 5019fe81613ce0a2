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


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("shape", [(64, 16), (3, 5, 24), (4, 21), (7, 17)], ids=str)
def test_within_the_distance_of_two_codes(shape, square):
    x = moment(shape, square)
    stored, back = held(x, square)
    assert stored.codes.shape == shape
    assert stored.codes.dtype == (jnp.uint8 if square else jnp.int8)
    assert stored.scale.shape == stored.top.shape == (*shape[:-1], -(-shape[-1] // 8))
    k, p = np.abs(np.asarray(stored.codes, np.float64)), 4 if square else 2
    scale = np.repeat(np.asarray(stored.scale, np.float64), 8, axis=-1)[..., : shape[-1]]
    gap = np.where(k == 0, 1, (k + 1) ** p - (k - 1) ** p) * scale
    inner = k < (255 if square else 127)
    floor = square & (np.asarray(x) < 9**4 * scale)
    assert (np.abs(back - x)[inner & ~floor] <= gap[inner & ~floor]).all()
    np.testing.assert_array_equal(back[~inner], x[~inner])


@pytest.mark.parametrize("square", [False, True])
def test_right_on_average(square):
    x = moment((16, 16), square) + (0.05 if square else 0.0)
    mean = np.mean([held(x, square, step)[1] for step in range(512)], axis=0)
    once = np.abs(held(x, square)[1] - x)
    np.testing.assert_allclose(mean, x, rtol=2e-3, atol=3e-4 * x.max())
    assert np.abs(mean - x).mean() < once.mean() / 20


def test_up_where_the_fraction_exceeds_the_threshold():
    x = jnp.asarray([[100.0, 126.0**2, 10.5**2, 1e6] + [0.0] * 12])  # the scale is 1, 10.5² 0.488 of the way to 11²
    like = CODEC.zeros(x, x.dtype, square=False)
    for threshold, code in ((0, 11), (2**30, 11), (2**31, 10), (2**32 - 1, 10)):
        stored = CODEC.encode(x, like, jnp.full(x.shape, threshold, jnp.uint32), square=False)
        assert stored.scale[0, 0] == 1
        np.testing.assert_array_equal(stored.codes[0, :4], [10, 126, code, 127])


@pytest.mark.parametrize("square", [False, True])
def test_the_codes_are_those_of_exact_arithmetic(square):
    """The rule in integers and exact fractions, against which no order of operations can differ."""
    x = moment((512, 16), square, seed=3)
    stored, _ = held(x, square, codec=Int8(block_size=16, min_size=0))
    random = np.asarray(bits(x.shape)) >> 8
    power, highest = (4, 254) if square else (2, 126)
    size, top = np.abs(x), np.abs(x).max(-1, keepdims=True)
    at_top = size >= np.float32(top * np.float32(1 - 2.0**-20))
    rest = np.where(at_top, 0, size).max(-1, keepdims=True)
    scale = rest / np.float32(highest**power)
    y = (size / scale).astype(np.float32).astype(np.float64)
    low = np.floor(y ** (1 / power))
    low = low - (low**power > y) + ((low + 1) ** power <= y)
    lower, upper = (np.asarray(k**power, np.float32).astype(np.float64) for k in (low, low + 1))
    code = low + ((y - lower) > random * 2.0**-24 * (upper - lower))
    code = np.where(at_top, highest + 1, np.clip(code, 9 if square else 0, highest)) * np.sign(x)
    np.testing.assert_array_equal(stored.codes, code)


def test_an_outlier_does_not_take_the_codes_of_its_neighbours():
    x = moment((64, 16), False)
    x[:, [3, 12]] = 1e8
    _, back = held(x, False)
    np.testing.assert_array_equal(back[:, [3, 12]], 1e8)
    others = np.delete(np.arange(16), [3, 12])
    error = np.abs(back - x)[:, others] / np.abs(x[:, others]).max(-1, keepdims=True)
    assert error.max() < 2 / 126


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


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("x", [0.0, 3e38, 2e-38, 1.0])
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
        (Int8(), (64, 64), "float32", "w", True),
        (Int8(), (64, 64), "float64", "w", True),
        (Int8(), (64, 64), "bfloat16", "w", True),
        (Int8(), (63, 64), "float32", "w", False),
        (Int8(), (4096,), "float32", "w", True),
        (Int8(), (4096, 8), "float32", "w", False),
        (Int8(), (4096, 16), "float32", "w", True),
        (Int8(min_size=0), (), "float32", "w", False),
        (Int8(exclude=("norm", "^embed")), (64, 64), "float32", "block/norm/scale", False),
        (Int8(exclude=("norm", "^embed")), (64, 64), "float32", "embed/table", False),
        (Int8(exclude=("norm", "^embed")), (64, 64), "float32", "my/embed", True),
        (Int8(), (64, 64), "complex64", "w", False),
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
        (Int8(block_size=1), ValueError, "block_size must be at least 2, got 1"),
        (Int8(block_size=32.0), TypeError, "block_size must be an integer"),
        (Int8(min_size=-1), ValueError, "min_size must be at least 0"),
        (Int8(exclude="norm"), TypeError, "exclude must be a tuple of regular expressions, got 'norm'"),
        (Int8(exclude=("[",)), ValueError, r"exclude: '\[' is not a regular expression"),
        (Int8, TypeError, r"got the class Int8: pass Int8\(\)"),
    ],
)
def test_wrong_arguments_are_named(codec, error, message):
    with pytest.raises(error, match=f"nu_dtype.*{message}"):
        adamx.adam(1e-3, nu_dtype=codec)
