import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamx.storage import blocks

SHAPES = [(8,), (2, 8), (3, 7), (1,), (2, 3, 12), (4, 0), (0, 8)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_merge_inverts_split(shape):
    x = jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)
    parts = blocks.split(x, 4)
    assert parts.shape == (*shape[:-1], blocks.count(shape, 4), 4)
    np.testing.assert_array_equal(blocks.merge(parts, shape), x)


@pytest.mark.parametrize("size", [2, 4, 8, 128, 16384])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, 8, 9, 100, 129, 4096, 40_000])
def test_a_state_tells_the_size_of_its_blocks(length, size):
    found = blocks.size_of(length, blocks.count((length,), size))
    assert found == size or (length <= found <= size or length == 0)  # one block: the least that holds all


@pytest.mark.parametrize(("length", "count"), [(100, 5), (192, 4 + 1), (8, 3)])
def test_blocks_of_another_size_are_told(length, count):
    with pytest.raises(ValueError, match=f"{length} in {count} blocks: blocks must have a power of two of elements"):
        blocks.size_of(length, count)


def test_a_short_last_block_is_filled_with_zeros():
    np.testing.assert_array_equal(blocks.split(jnp.arange(1, 6), 4), [[1, 2, 3, 4], [5, 0, 0, 0]])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_per_block(shape):
    found = blocks.per_block(jnp.zeros(shape, jnp.int8), 4, 2, jnp.float32)
    assert (found.shape, found.dtype) == ((*shape[:-1], blocks.count(shape, 4), 2), jnp.float32)
    traced = jax.eval_shape(lambda: blocks.per_block(jnp.zeros(shape, jnp.int8), 4, 2, jnp.float32))
    assert (traced.shape, traced.dtype) == (found.shape, found.dtype)
