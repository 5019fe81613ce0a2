import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest

from adamx.kernels.pallas.view import places, view_of
from adamx.storage.dither import place, thresholds, thresholds_at

SHAPES = [(1024,), (24, 256), (3, 20, 256), (2, 3, 5, 128), (300, 64)]
PLATFORMS = ["cuda", "tpu"]
SALT = np.uint32(0x89ABCDEF)


def assembled(view, shape, tiles):
    """An array of a shape from a function from the number of a tile to its elements."""
    whole = np.zeros((view.grid[0], view.grid[1] * view.rows, view.shape[2]), np.uint32)
    for outer, row, column in itertools.product(*map(range, view.grid)):
        rows = slice(row * view.rows, (row + 1) * view.rows)
        whole[outer, rows, column * view.block : (column + 1) * view.block] = tiles((outer, row, column))
    return whole[:, : view.shape[1]].reshape(shape)


@pytest.mark.slow
@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_thresholds_are_those_of_the_whole_leaf(shape, platform, offset):
    view = view_of(shape, 64 if shape[-1] == 64 else 128, platform)
    start = tuple(2**31 + 7 * axis for axis in range(len(shape))) if offset else None
    start = None if start is None else tuple(np.uint32(i) for i in start)

    def tile(number):
        where = places(view, [jnp.int32(i) for i in number])
        return thresholds_at(place(SALT, start) + where, np.uint32(9))

    np.testing.assert_array_equal(assembled(view, shape, tile), thresholds(shape, SALT, np.uint32(9), start))


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("shape", [*SHAPES, (50257, 768), (4096, 128 * 200), (1, 1 << 20)])
def test_tiles_cover_a_leaf(shape, platform):
    view = view_of(shape, 64 if shape[-1] == 64 else 128, platform)
    assert math.prod(view.shape) == math.prod(shape)
    assert math.prod(view.blocks) * view.block == math.prod(shape)
    rows = view.grid[1] * view.rows
    assert rows == view.shape[1] or (platform == "tpu" and 0 < rows - view.shape[1] < view.rows)


def test_on_a_gpu_tiles_are_powers_of_two_that_need_no_mask():
    for rows in (1, 3, 48, 50257, 65536):
        view = view_of((rows, 768), 128, "cuda")
        assert view.rows & (view.rows - 1) == 0
        assert view.shape[1] % view.rows == 0
        assert view.rows * view.block <= 2048


def test_the_environment_asks_for_other_tiles(monkeypatch):
    assert view_of((64, 768), 128, "cuda").rows == 16
    monkeypatch.setenv("ADAMX_GPU_TILES", "1024,128,2")
    assert view_of((64, 768), 128, "cuda").rows == 8


def test_on_a_tpu_the_last_two_axes_stay_as_they_are():
    assert view_of((3, 5, 40, 256), 128, "tpu").shape == (15, 40, 256)
    assert view_of((256,), 128, "tpu").shape == (1, 1, 256)


@pytest.mark.parametrize("blocks", [1, 6, 200])
def test_numbers_of_blocks_are_read_and_written_one_by_one(blocks):
    view = view_of((8, 128 * blocks), 128, "tpu")
    numbers = jnp.arange(8.0 * view.width).reshape(8, view.width).at[0, 0].set(jnp.nan)
    for column in {0, blocks // 2, blocks - 1}:
        tile, own = (jnp.int32(0), jnp.int32(0), jnp.int32(column)), column % view.width
        np.testing.assert_array_equal(view.read(numbers, tile), numbers[:, own : own + 1])
        expected = numbers.at[:, own].set(-1.0)
        np.testing.assert_array_equal(view.written(numbers, jnp.full((8, 1), -1.0), tile), expected)
