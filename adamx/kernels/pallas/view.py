"""How a leaf is seen as tiles, and where in the leaf the elements of a tile are.

A tile is a block of neighbours wide, so that what its rows have in common is a maximum along its last axis. On a GPU an
array lies in memory row by row: each block is a row of a matrix, whatever axes there were. On a TPU the last two axes
lie there in tiles, and a view must leave them alone.
"""

import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from adamx.storage.dither import along

GPUS = ("cuda", "rocm")
LANES = 128
"""The width of a vector on a TPU, and of a tile without blocks."""
TPU_ROWS = 256
"""Rows of a tile on a TPU."""


class GpuTiles(NamedTuple):
    """How a GPU divides its work on a leaf.

    Attributes:
        elements: of a tile.
        per_warp: elements of a tile that 32 threads share.
        stages: of Triton's pipeline.
    """

    elements: int = 2048
    per_warp: int = 256
    stages: int = 1


def gpu_tiles() -> GpuTiles:
    """The tiles of programs that are traced now.

    For measurements the environment variable `ADAMX_GPU_TILES` asks for others, in the order of the attributes:
    "4096,256,1". Powers of two, except for the last number.
    """
    asked = os.environ.get("ADAMX_GPU_TILES", "")
    return GpuTiles(*map(int, asked.split(","))) if asked else GpuTiles()


class View(NamedTuple):
    """A leaf as an array of three axes, each made of several, and its tiles.

    Attributes:
        outer: the sizes of the axes that a tile does not span.
        inner: of those whose indices together count its rows.
        last: of the last one, a multiple of `block`.
        block: the width of a tile.
        rows: its height.
        strides: what an index adds to the place of its element, for each axis of `outer`, of `inner` and the last.
    """

    outer: tuple[int, ...]
    inner: tuple[int, ...]
    last: int
    block: int
    rows: int
    strides: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the array of codes."""
        return math.prod(self.outer), math.prod(self.inner), self.last

    @property
    def blocks(self) -> tuple[int, int, int]:
        """The shape of an array with a number for each block."""
        return *self.shape[:-1], self.last // self.block

    @property
    def grid(self) -> tuple[int, int, int]:
        """How many tiles there are along each axis."""
        outer, inner, last = self.shape
        return outer, -(-inner // self.rows), last // self.block

    @property
    def width(self) -> int:
        """How many blocks' numbers come with a tile, its own among them: a TPU reads no single ones."""
        return min(self.last // self.block, LANES)

    def elements(self) -> pl.BlockSpec:
        """The tiles of an array with a number an element."""

        def tile(outer: Any, row: Any, column: Any) -> tuple[Any, ...]:
            return outer, row, column

        return pl.BlockSpec((None, self.rows, self.block), tile)

    def numbers(self) -> pl.BlockSpec:
        """The tiles of an array with a number a block."""

        def tile(outer: Any, row: Any, column: Any) -> tuple[Any, ...]:
            return outer, row, jax.lax.div(column, jnp.int32(self.width))

        return pl.BlockSpec((None, self.rows, self.width), tile)

    def read(self, numbers: Any, tile: Sequence[jax.Array]) -> jax.Array:
        """A column: the numbers of a tile's own blocks."""
        if self.width == 1:
            return numbers[...]
        return jnp.sum(jnp.where(self._own(tile), numbers[...], 0.0), axis=-1, keepdims=True)

    def written(self, numbers: Any, column: jax.Array, tile: Sequence[jax.Array]) -> jax.Array:
        """All that come with a tile, its own ones changed."""
        return column if self.width == 1 else jnp.where(self._own(tile), column, numbers[...])

    def _own(self, tile: Sequence[jax.Array]) -> jax.Array:
        lane = jax.lax.broadcasted_iota(jnp.int32, (self.rows, self.width), 1)
        return lane == jax.lax.rem(tile[2], jnp.int32(self.width))


def view_of(shape: Sequence[int], block: int, platform: str) -> View:
    """The view of a leaf whose last axis is a multiple of the block."""
    axes = [int(along(len(shape) - axis)) for axis in range(len(shape))]
    if platform in GPUS:
        inner = (*shape[:-1], shape[-1] // block)
        rows = math.gcd(math.prod(inner), max(1, gpu_tiles().elements // block))
        return View((), inner, block, block, rows, (*axes[:-1], block * axes[-1] % 2**32, axes[-1]))
    inner = tuple(shape[-2:-1])
    rows = min(math.prod(inner), TPU_ROWS)
    return View(tuple(shape[:-2]), inner, shape[-1], block, rows, tuple(axes))


def places(view: View, tile: Sequence[jax.Array]) -> jax.Array:
    """The place of each element of a tile relative to that of the leaf's first one; see `storage.dither.thresholds_at`.

    Args:
        view: of the leaf.
        tile: its number along each axis of the grid.
    """
    outer, rows, column = tile
    row = rows * view.rows + jax.lax.broadcasted_iota(jnp.int32, (view.rows, 1), 0)
    lane = jax.lax.broadcasted_iota(jnp.int32, (1, view.block), 1) + column * view.block
    between = len(view.outer)
    start = _moved(outer, view.outer, view.strides[:between])
    return (start + _moved(row, view.inner, view.strides[between:-1])) + _moved(lane, (view.last,), view.strides[-1:])


def _moved(index: jax.Array, sizes: Sequence[int], strides: Sequence[int]) -> jax.Array:
    """What an index that counts through several axes adds to a place."""
    moved = jnp.zeros_like(index, jnp.uint32)
    axes = [axis for axis in zip(sizes, strides, strict=True) if axis[0] > 1]
    for number, (size, stride) in reversed(list(enumerate(axes))):
        along_axis = index if number == 0 else jax.lax.rem(index, jnp.full_like(index, size))
        moved = moved + along_axis.astype(jnp.uint32) * jnp.uint32(stride)
        index = index if number == 0 else jax.lax.div(index, jnp.full_like(index, size))
    return moved
