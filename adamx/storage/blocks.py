"""Blocks of neighbours within the last axis, which share a scale. A sharded leaf stays sharded."""

import math
from typing import Any

import jax
import jax.numpy as jnp


def count(shape: tuple[int, ...], size: int) -> int:
    """The number of blocks along the last axis; the last one may be short."""
    return -(-shape[-1] // size)


def size_of(length: int, blocks: int) -> int:
    """The number of neighbours that share a scale, a power of two: where there is one block, the least that holds all.

    Args:
        length: of the last axis.
        blocks: how many there are along it.

    Raises:
        ValueError: no power of two gives that many.
    """
    size = 1 << max(-(-length // max(blocks, 1)) - 1, 0).bit_length()
    if -(-length // size) != blocks:
        raise ValueError(f"a last axis of {length} in {blocks} blocks: blocks must have a power of two of elements")
    return size


def split(x: jax.Array, size: int) -> jax.Array:
    """`(..., n)` to `(..., blocks, size)`, filled up with zeros."""
    blocks = count(x.shape, size)
    missing = blocks * size - x.shape[-1]
    if missing:
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)])
    return x.reshape(*x.shape[:-1], blocks, size)


def merge(blocks: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The inverse of `split`: `(..., blocks, size)` to `(..., n)`."""
    return blocks.reshape(*shape[:-1], blocks.shape[-2] * blocks.shape[-1])[..., : shape[-1]]


def columns(scales: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Scale and largest of each block: `(..., blocks, 2)` to two times `(..., blocks, 1)`."""
    return tuple(jax.lax.slice_in_dim(scales, i, i + 1, axis=-1) for i in (0, 1))  # pyright: ignore[reportReturnType]


def together(scale: jax.Array, top: jax.Array) -> jax.Array:
    """The inverse of `columns`."""
    return jnp.concatenate([scale, top], axis=-1)


def per_block(codes: jax.Array, size: int, numbers: int, dtype: Any, where: str = "a leaf") -> jax.Array:
    """Zeros, so many numbers a block, placed as the codes are, and varying over the same axes of a mesh.

    Raises:
        ValueError: the type of the codes says that blocks are cut.
    """
    sharding = jax.typeof(codes).sharding
    cut = sharding.spec[-1] if sharding.spec else None  # of Explicit axes; types do not tell of others
    if cut is not None:
        check_whole(where, size, codes.shape[-1], cut, math.prod(sharding.mesh.shape[name] for name in _names(cut)))
    return jax.lax.slice_in_dim(split(codes, size), 0, numbers, axis=-1).astype(dtype)


def check_whole(where: str, size: int, length: int, axes: Any, parts: int) -> None:
    """Raises a ValueError where a last axis is split over devices between the elements of a block."""
    if size > 1 and length % (parts * size):
        raise ValueError(
            f"the moments of {where} are quantized in blocks of {size} neighbours, but {_names(axes)} splits its "
            f"last axis of {length} into {parts} parts: take a block_size that divides a part, or leave the leaf out "
            'of the codec, as with adamx.storage.Int8(exclude=...) or in "bfloat16"'
        )


def check_scales(scales: jax.Array, shape: tuple[int, ...], size: int) -> None:
    """Raises a ValueError where the numbers of blocks are not those of the codes beside them."""
    expected = (*shape[:-1], count(shape, size))
    if tuple(scales.shape[:-1]) != expected:
        raise ValueError(
            f"a moment has codes of shape {tuple(shape)} in blocks of {size}, which need scales of shape "
            f"{(*expected, scales.shape[-1])}, got {tuple(scales.shape)}: take the block_size that the state was made "
            "with; inside shard_map give codes and scales the spec of their parameter, and split its last axis "
            "between blocks only"
        )


def _names(axes: Any) -> tuple[str, ...]:
    return axes if isinstance(axes, tuple) else (axes,)
