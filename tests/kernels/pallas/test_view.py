import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest

from adamx.kernels.pallas.view import places, view_of
from adamx.storage.dither import place, thresholds, thresholds_at

SHAPES = [(1024,), (300 * 1024,), (24, 256), (5, 4096), (3, 20, 256), (2, 3, 5, 128), (300, 64)]
PLATFORMS = ["cuda", "tpu"]
SALT = np.uint32(0x89ABCDEF)


def assembled(view, shape, tiles):
    """An array of a shape from a function from the number of a tile to its elements."""
    width = view.wide * view.block
    whole = np.zeros((view.grid[0], view.grid[1] * view.rows, view.shape[2]), np.uint32)
    for outer, row, column in itertools.product(*map(range, view.grid)):
        rows, columns = (slice(i * size, (i + 1) * size) for i, size in ((row, view.rows), (column, width)))
        part = whole[outer, rows, columns]
        part = part.reshape(-1, 8, 128) if view.vectors else part
        view.write(part, tiles((outer, row, column)))
        whole[outer, rows, columns] = part.reshape(view.rows, width)
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
    assert view.grid[2] * view.wide * view.block == view.last
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
    assert view_of((2048,), 128, "tpu").seen(jnp.zeros(2048), scales=False).shape == (2, 8, 128)


@pytest.mark.parametrize(
    ("shape", "order"),
    [
        ((4096, 4096), (0, 2, 3, 1)),
        ((384, 200 * 128), (0, 2, 3, 1)),
        ((33, 32 * 128), (0, 2, 3, 1)),
        ((8192, 128), (0, 2, 3, 1)),
        ((1 << 14,), (0, 2, 3, 1)),
        ((32, 4096), (0, 1, 3, 2)),
        ((256, 256 * 128), (0, 1, 3, 2)),
        ((1000, 512 * 128), (0, 1, 3, 2)),
        ((16, 1 << 20), (0, 1, 3, 2)),
    ],
)
def test_scales_are_seen_as_xla_lays_them_down(shape, order):
    """The orders that libtpu 0.0.42 gives: `benchmarks/compiled.py` would count copies."""
    assert view_of(shape, 128, "tpu").order == order


@pytest.mark.parametrize("block", [128, 256, 512, 1024])
@pytest.mark.parametrize("rows", [4, 11, 31, 100, 5000])
def test_on_a_tpu_tiles_fill_vectors_and_fit_its_fast_memory(rows, block):
    view = view_of((rows, 64 * block), block, "tpu")
    assert view.grid[2] * view.wide == 64
    assert 1 << 14 <= view.wide * max(view.rows, 8) * block <= 1 << 17
    assert view.rows == rows or view.rows % 128 == 0


@pytest.mark.parametrize(("platform", "rows"), [("cuda", 8), ("tpu", 8), ("tpu", 500), ("tpu", 65)])
@pytest.mark.parametrize("blocks", [1, 6, 200])
def test_scales_of_each_tile_are_read_and_written(blocks, rows, platform):
    view = view_of((rows, 128 * blocks), 128, platform)
    scales = jnp.arange(2.0 * rows * blocks).reshape(rows, blocks, 2)
    seen, spec = np.asarray(view.seen(scales, scales=True)), view.numbers()
    np.testing.assert_array_equal(view.back(jnp.asarray(seen), scales, scales=True), scales)
    sizes = [size or 1 for size in spec.block_shape]
    padded = np.pad(seen, [(0, -n % size) for n, size in zip(seen.shape, sizes, strict=True)], constant_values=np.nan)
    found, numbers = np.full_like(padded, np.nan), np.zeros((view.grid[1] * view.rows, view.last // 128, 2), np.float32)
    for tile in itertools.product(*map(range, view.grid)):
        starts = [i * size for i, size in zip(spec.index_map(*tile), sizes, strict=True)]
        at = tuple(
            start if whole is None else slice(start, start + whole)
            for start, whole in zip(starts, spec.block_shape, strict=True)
        )
        for number in (0, 1):
            column = view.column(padded[at], number, tile)
            view.put(found[at], number, column + 1, tile)
            for i, part in enumerate(np.split(column[:, 0], view.wide)):
                numbers[tile[1] * view.rows :, tile[2] * view.wide + i, number][: view.rows] = part
    np.testing.assert_array_equal(found[tuple(map(slice, seen.shape))], seen + 1)
    np.testing.assert_array_equal(numbers[: view.shape[1]].reshape(scales.shape), scales)
