import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamx.storage import Int8, Quantized
from adamx.storage.dither import thresholds
from adamx.storage.largest import ROUNDING, largest_two
from adamx.storage.on_blocks import OnBlocks, View


@pytest.mark.parametrize(("shape", "rows"), [((16, 64), 1), ((16, 64), 8), ((2, 24, 40), 8), ((50,), 1)], ids=str)
def test_a_view_is_another_order_of_the_same_numbers(shape, rows):
    x, view = jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape), View(shape, 16, rows)
    seen = view.split(x)
    assert seen.shape[-1] == 16
    np.testing.assert_array_equal(view.merge(seen), x)
    blocks = np.asarray(seen).reshape(-1, 16)
    starts = blocks[:, 0].astype(int) % shape[-1]
    assert (starts % 16 == 0).all()  # each block is 16 neighbours of the last axis
    whole = blocks[starts + 16 <= shape[-1]]
    np.testing.assert_array_equal(whole, whole[:, :1] + np.arange(16))


@pytest.mark.slow
@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("rows", [1, 8])
def test_seen_in_blocks_a_moment_is_kept_as_before(rows, square):
    codec, x = Int8(16, 0), jnp.asarray(np.random.default_rng(0).standard_normal((16, 64)), jnp.float32)
    x = x * x if square else x
    like, bits = codec.zeros(x, x.dtype, square=square), thresholds(x.shape, np.uint32(16), 1)
    view = View(x.shape, 16, rows)
    expected = codec.encode(x, like, bits, square=square)
    assert isinstance(expected, Quantized)
    found = largest_two(jnp.abs(view.split(x)), ROUNDING)
    for seen in (OnBlocks(codec, view), OnBlocks(codec, view, found)):
        got = seen.encode(x, like, bits, square=square)
        jax.tree.map(np.testing.assert_array_equal, got, expected)
        np.testing.assert_array_equal(seen.decode(got, jnp.float32), codec.decode(expected, jnp.float32))
