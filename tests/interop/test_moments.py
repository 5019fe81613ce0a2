import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.interop.moments import block_sizes, by_path, decode, encode
from adamx.storage import Float, Int8

KEPT = {
    "float32": (Float("float32"), None),
    "bfloat16": (Float("bfloat16"), None),
    "float16": (Float("float16"), None),
    "float8": (Float("float8_e4m3fn"), None),
    "int8": (Int8(block_size=24, min_size=0), 24),
}


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("name", KEPT)
def test_what_was_stored_is_stored_again_as_it_was(name, square):
    # The nearest of what lies on a stored number is that number. The unit of a block is computed anew: in int8 from
    # the second largest, rounded once more, in float8 twice as large where the largest was rounded to a power of two.
    codec, size = KEPT[name]
    x = np.random.default_rng(0).standard_normal((5, 100)).astype(np.float32)
    like = codec.zeros(x, jnp.float32, square=square)
    stored = encode(x * x if square else x, like, square, size)
    first = np.asarray(decode("w", stored, size))
    again = encode(first, like, square, size)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(like), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
    if name != "int8":
        np.testing.assert_array_equal(decode("w", again, size), first)
        return
    # Where the second largest was rounded to the largest, the scale is now that of the third.
    stands_apart = (
        np.add.reduceat(np.abs(first) == np.repeat(stored.top, size, -1)[:, :100], range(0, 100, 24), -1) == 1
    )
    assert stands_apart.mean() > 0.8
    same = np.repeat(stands_apart, size, -1)[:, :100]
    np.testing.assert_allclose(decode("w", again, size)[same], first[same], rtol=2.0**-20)
    np.testing.assert_array_equal(again.codes[same], stored.codes[same])


# Half a unit in the last place of bfloat16, float16 (block-scaled or not) and float8 (3 bits of fraction).
# Int8: m = (k/126)² of the block's second largest, half a code further at k: (k + 1/2)² - k² = k + 1/4, at most 126.
ERRORS = {"float32": 0, "bfloat16": 2.0**-8, "float16": 2.0**-11, "float8": 2.0**-4}


@pytest.mark.parametrize("name", ERRORS)
def test_rounds_to_nearest(name):
    codec, size = KEPT[name]
    x = 1 + np.random.default_rng(0).random((5, 64)).astype(np.float32)  # one binade: one scale
    stored = encode(x, codec.zeros(x, jnp.float32, square=False), False, size)
    np.testing.assert_allclose(decode("w", stored, size), x, rtol=ERRORS[name], atol=0)


def test_int8_rounds_to_nearest():
    x = np.random.default_rng(0).random((5, 96)).astype(np.float32)
    stored = encode(x, Int8(24, 0).zeros(x, jnp.float32, square=False), False, 24)
    scale = np.repeat(np.asarray(stored.scale), 24, axis=-1)
    off = np.abs(np.asarray(decode("w", stored, 24)) - x) / scale
    gap = 2.0 ** np.floor(np.log2(1 + x / scale)) / 32  # between the codes around x: five digits of 1 + x / scale
    assert (off <= gap / 2 * (1 + 1e-4)).all()
    assert (off / gap).max() > 0.49


def test_too_large_becomes_the_largest(x64):
    like = Float("float32").zeros(jnp.zeros(3), jnp.float64, square=True)
    stored = encode(jnp.asarray([1e300, 1.0, np.nan]), like, True)
    np.testing.assert_array_equal(stored, np.asarray([np.finfo(np.float32).max, 1, np.nan], np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 127, 16000])
@pytest.mark.parametrize(
    "wrap", [lambda tx: tx, adamx.with_master_weights, lambda tx: optax.masked(tx, {"w": True, "b": False})]
)
def test_block_sizes_are_those_of_the_codec(size, wrap):
    tx = wrap(adamx.adam(1e-3, mu_dtype=Int8(size, 0), nu_dtype=Int8(2 * size, 0)))
    params = {"w": jnp.ones((3, 200), jnp.bfloat16), "b": jnp.ones(20)}
    sizes = block_sizes(tx, params)
    quantized = [path for path, x in by_path(tx.init(params)).items() if isinstance(x, adamx.storage.Quantized)]
    assert len(quantized) >= 2
    for path in quantized:
        assert sizes[path] == (size if "/mu/" in path else 2 * size)


def test_blocks_too_long_to_tell():
    tx = adamx.adam(1e-3, mu_dtype=Int8(40_000, 0), nu_dtype=Int8(40_000, 0))
    with pytest.raises(ValueError, match=r"blocks at 0/mu are too long to be told: .*32,767"):
        block_sizes(tx, jnp.ones(100))


def test_another_codec_is_refused():
    with pytest.raises(TypeError, match=r"moment at 0/mu/w cannot be carried: int32 is not of a codec of adamx"):
        decode("0/mu/w", jnp.ones(2, jnp.int32))
