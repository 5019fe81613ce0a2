import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamx.interop.moments import encode
from adamx.storage import Float, Int8
from adamx.storage.choice import decode

SIZE = 32
KEPT = {
    "float32": Float("float32"),
    "bfloat16": Float("bfloat16"),
    "float16": Float("float16"),
    "float8": Float("float8_e4m3fn"),
    "int8": Int8(block_size=SIZE, min_size=0),
}


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("name", KEPT)
def test_what_was_stored_is_stored_again_as_it_was(name, square):
    # The nearest of what lies on a stored number is that number. The unit of a block is computed anew: in int8 from
    # the second largest, rounded once more, in float8 twice as large where that was rounded to a power of two.
    codec = KEPT[name]
    x = np.random.default_rng(0).standard_normal((5, 100)).astype(np.float32)
    like = codec.zeros(x, jnp.float32, square=square)
    stored = encode(x * x if square else x, like, square)
    first = np.asarray(decode("w", stored))
    again = encode(first, like, square)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(like), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
    if name == "float8":  # where a second largest was rounded above the largest, which bfloat16 rounds once more
        same = np.repeat((again.scales == stored.scales).all(axis=-1), 64, -1)[:, :100]
        assert same.mean() > 0.3
        np.testing.assert_allclose(decode("w", again)[same], first[same], rtol=2.0**-8)
        np.testing.assert_allclose(decode("w", again), first, rtol=2.0**-4)
        return
    if name != "int8":
        np.testing.assert_array_equal(decode("w", again), first)
        return
    # Where the second largest was rounded to the largest, the scale is now that of the third.
    stands_apart = (
        np.add.reduceat(np.abs(first) == np.repeat(stored.scales[..., 1], SIZE, -1)[:, :100], range(0, 100, SIZE), -1)
        == 1
    )
    assert stands_apart.mean() > 0.8
    same = np.repeat(stands_apart, SIZE, -1)[:, :100]
    np.testing.assert_allclose(decode("w", again)[same], first[same], rtol=2.0**-20)
    np.testing.assert_array_equal(again.codes[same], stored.codes[same])


# Half a unit in the last place of bfloat16, float16 (block-scaled or not) and float8 (3 bits of fraction).
# Int8: m = (k/126)² of the block's second largest, half a code further at k: (k + 1/2)² - k² = k + 1/4, at most 126.
ERRORS = {"float32": 0, "bfloat16": 2.0**-8, "float16": 2.0**-11, "float8": 2.0**-4}


@pytest.mark.parametrize("name", ERRORS)
def test_rounds_to_nearest(name):
    codec = KEPT[name]
    x = 1 + np.random.default_rng(0).random((5, 64)).astype(np.float32)  # one binade: one scale
    stored = encode(x, codec.zeros(x, jnp.float32, square=False), False)
    np.testing.assert_allclose(decode("w", stored), x, rtol=ERRORS[name], atol=0)


def test_int8_rounds_to_nearest():
    x = np.random.default_rng(0).random((5, 96)).astype(np.float32)
    stored = encode(x, KEPT["int8"].zeros(x, jnp.float32, square=False), False)
    scale = np.repeat(np.asarray(stored.scales[..., 0]), SIZE, axis=-1)
    off = np.abs(np.asarray(decode("w", stored)) - x) / scale
    gap = 2.0 ** np.floor(np.log2(1 + x / scale)) / 32  # between the codes around x: five digits of 1 + x / scale
    assert (off <= gap / 2 * (1 + 1e-4)).all()
    assert (off / gap).max() > 0.49


def test_too_large_becomes_the_largest(x64):
    like = Float("float32").zeros(jnp.zeros(3), jnp.float64, square=True)
    stored = encode(jnp.asarray([1e300, 1.0, np.nan]), like, True)
    np.testing.assert_array_equal(stored, np.asarray([np.finfo(np.float32).max, 1, np.nan], np.float32))
