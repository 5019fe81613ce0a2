"""How a leaf is seen as tiles, and where in the leaf the elements of a tile are.

A tile is a block of neighbours wide, so that what its rows have in common is a maximum along its last axis. On a GPU an
array lies in memory row by row: each block is a row of a matrix, whatever axes there were. On a TPU the last two axes
lie there in tiles, and a view must leave them alone. XLA also permutes the axes of scales there, so that their tiles
are full. The view transposes them in the same way, so that nothing is copied.
"""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl

from adamx.storage.dither import along

GPUS = ("cuda", "rocm")
LANES = 128
"""The width of a vector on a TPU, and of a tile without blocks."""
SUBLANES = 8
"""The height of a vector on a TPU."""
TPU_TILE = 256 * LANES
"""Elements of a tile on a TPU, unless `LANES` rows are more: scales of fewer rows fill no vector."""
ROWS, BLOCKS, NUMBERS = 1, 2, 3
"""The axes of scales, seen as (outer, inner, blocks, 2)."""


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

    A tile is a column of blocks, or several side by side. The kernel works on it as a matrix with a block in each row:
    the first column of blocks, then the next.

    Attributes:
        outer: the sizes of the axes that a tile does not span.
        inner: of those whose indices together count its rows.
        last: of the last one, a multiple of `block`.
        block: elements of a block.
        rows: of a tile.
        wide: how many blocks of a tile lie side by side.
        strides: what an index adds to the place of its element, for each axis of `outer`, of `inner` and the last.
        order: the axes of scales, seen as (outer, inner, blocks, 2), as they lie in memory.
        vectors: whether arrays with a number an element are seen as (n / 1024, 8, 128), as one axis lies on a TPU.
    """

    outer: tuple[int, ...]
    inner: tuple[int, ...]
    last: int
    block: int
    rows: int
    wide: int
    strides: tuple[int, ...]
    order: tuple[int, ...]
    vectors: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Outer, inner and last."""
        return math.prod(self.outer), math.prod(self.inner), self.last

    @property
    def grid(self) -> tuple[int, int, int]:
        """How many tiles there are along each axis."""
        outer, inner, last = self.shape
        return outer, -(-inner // self.rows), last // (self.wide * self.block)

    @property
    def together(self) -> int:
        """How many blocks of a row have their scales in a tile of scales: a TPU reads no parts of a vector."""
        return min(self.last // self.block, LANES) if self.order[-1] == BLOCKS else self.wide

    def elements(self) -> pl.BlockSpec:
        """The tiles of an array with a number an element."""

        def tile(outer: Any, row: Any, column: Any) -> tuple[Any, ...]:
            return (row, outer, column) if self.vectors else (outer, row, column)

        if self.vectors:
            return pl.BlockSpec((self.rows * self.block // (SUBLANES * LANES), SUBLANES, LANES), tile)
        return pl.BlockSpec((None, self.rows, self.wide * self.block), tile)

    def numbers(self) -> pl.BlockSpec:
        """The tiles of scales."""

        def tile(outer: Any, row: Any, column: Any) -> tuple[Any, ...]:
            at = outer, row, jax.lax.div(column * self.wide, jnp.int32(self.together)), 0
            return tuple([at[axis] for axis in self.order])

        sizes = None, self.rows, self.together, 2
        return pl.BlockSpec(tuple([sizes[axis] for axis in self.order]), tile)

    def seen(self, x: jax.Array, *, scales: bool) -> jax.Array:
        """An array of a leaf as the kernel gets it."""
        outer, inner, last = self.shape
        if scales:
            return jnp.reshape(x, (outer, inner, last // self.block, 2)).transpose(self.order)
        return jnp.reshape(x, (-1, SUBLANES, LANES) if self.vectors else self.shape)

    def back(self, x: jax.Array, like: jax.Array, *, scales: bool) -> jax.Array:
        """The inverse, in the shape of another array."""
        return jnp.reshape(x.transpose(np.argsort(self.order)) if scales else x, like.shape)

    def stacked(self, of: Callable[[int], jax.Array]) -> jax.Array:
        """The matrix of a tile, from a function that gives the rows of one column of blocks."""
        found = [of(i) for i in range(self.wide)]
        return jnp.concatenate(found) if self.wide > 1 else found[0]

    def read(self, elements: Any) -> jax.Array:
        """A tile as a matrix."""
        if self.vectors:
            return jnp.reshape(elements[...], (self.rows, self.block))
        return self.stacked(lambda i: elements[:, i * self.block : (i + 1) * self.block])

    def write(self, elements: Any, x: jax.Array) -> None:
        """The inverse."""
        if self.vectors:
            elements[...] = jnp.reshape(x, (-1, SUBLANES, LANES))
            return
        for i in range(self.wide):
            elements[:, i * self.block : (i + 1) * self.block] = x[i * self.rows : (i + 1) * self.rows]

    def column(self, scales: Any, number: int, tile: Sequence[jax.Array]) -> jax.Array:
        """One of the two numbers of each block of a tile, as a column."""
        if self.order[-1] == NUMBERS:
            return scales[:, 0, number : number + 1]
        if self.order[-1] == ROWS:
            return self.stacked(lambda i: scales[i, number : number + 1, :].T)
        near = scales[:, number, :]
        return self.stacked(lambda i: jnp.sum(jnp.where(self._own(tile, i), near, 0.0), axis=-1, keepdims=True))

    def put(self, scales: Any, number: int, column: jax.Array, tile: Sequence[jax.Array]) -> None:
        """The inverse; what belongs to other tiles stays."""
        if self.order[-1] == NUMBERS:
            scales[:, 0, number : number + 1] = column
            return
        each = [column[i * self.rows : (i + 1) * self.rows] for i in range(self.wide)]
        if self.order[-1] == ROWS:
            for i, own in enumerate(each):
                scales[i, number : number + 1, :] = own.T
            return
        near = scales[:, number, :]
        for i, own in enumerate(each):
            near = jnp.where(self._own(tile, i), own, near)
        scales[:, number, :] = near

    def _own(self, tile: Sequence[jax.Array], i: int) -> jax.Array:
        """Where the scales of a tile's block are among those that come with it."""
        lane = jax.lax.broadcasted_iota(jnp.int32, (self.rows, self.together), 1)
        return lane == jax.lax.rem(tile[2] * self.wide + i, jnp.int32(self.together))


def view_of(shape: Sequence[int], block: int, platform: str) -> View:
    """The view of a leaf whose last axis is a multiple of the block."""
    axes = [int(along(len(shape) - axis)) for axis in range(len(shape))]
    if platform in GPUS:
        inner = (*shape[:-1], shape[-1] // block)
        rows = math.gcd(math.prod(inner), max(1, gpu_tiles().elements // block))
        strides = (*axes[:-1], block * axes[-1] % 2**32, axes[-1])
        return View((), inner, block, block, rows, 1, strides, (0, ROWS, BLOCKS, NUMBERS))
    most = max(LANES, TPU_TILE // block)
    if len(shape) == 1:
        inner = (shape[0] // block,)
        rows = min(inner[0], most)
        return View((), inner, block, block, rows, 1, (block, 1), (0, BLOCKS, NUMBERS, ROWS), vectors=True)
    rows, blocks = shape[-2], shape[-1] // block
    wide = math.gcd(blocks, _power_of_two(TPU_TILE // (block * max(rows, SUBLANES))))
    # As XLA lays scales down: with the fewest numbers when they fill whole vectors.
    by_row = blocks * -(-rows // LANES) < rows * -(-blocks // LANES)
    order = (0, BLOCKS, NUMBERS, ROWS) if by_row else (0, ROWS, NUMBERS, BLOCKS)
    return View(tuple(shape[:-2]), (rows,), shape[-1], block, min(rows, most), wide, tuple(axes), order)


def _power_of_two(most: int) -> int:
    """The largest one up to a number, or 1."""
    return 1 << max(most.bit_length() - 1, 0)


def places(view: View, tile: Sequence[jax.Array]) -> jax.Array:
    """The place of each element of a tile relative to that of the leaf's first one; see `storage.dither.thresholds_at`.

    Args:
        view: of the leaf.
        tile: its number along each axis of the grid.
    """
    outer, rows, column = tile
    row = rows * view.rows + jax.lax.broadcasted_iota(jnp.int32, (view.rows, 1), 0)
    between = len(view.outer)
    start = _moved(outer, view.outer, view.strides[:between])
    start = start + _moved(row, view.inner, view.strides[between:-1])

    def of_block(i: int) -> jax.Array:
        lane = jax.lax.broadcasted_iota(jnp.int32, (1, view.block), 1) + (column * view.wide + i) * view.block
        return start + _moved(lane, (view.last,), view.strides[-1:])

    return view.stacked(of_block)


def _moved(index: jax.Array, sizes: Sequence[int], strides: Sequence[int]) -> jax.Array:
    """What an index that counts through several axes adds to a place."""
    moved = jnp.zeros_like(index, jnp.uint32)
    axes = [axis for axis in zip(sizes, strides, strict=True) if axis[0] > 1]
    for number, (size, stride) in reversed(list(enumerate(axes))):
        along_axis = index if number == 0 else jax.lax.rem(index, jnp.full_like(index, size))
        moved = moved + along_axis.astype(jnp.uint32) * jnp.uint32(stride)
        index = index if number == 0 else jax.lax.div(index, jnp.full_like(index, size))
    return moved
