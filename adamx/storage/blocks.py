"""Blocks of neighbours within the last axis, which share a scale. A sharded leaf stays sharded."""

from typing import Any

import jax
import jax.numpy as jnp


def count(shape: tuple[int, ...], size: int) -> int:
    """The number of blocks along the last axis; the last one may be short."""
    return -(-shape[-1] // size)


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


def per_block(codes: Any, size: int, dtype: Any) -> jax.Array:
    """Zeros, one a block, placed as the codes are."""
    if isinstance(codes, jax.Array) and codes.shape[-1] % size == 0:
        return split(codes, size)[..., 0].astype(dtype)
    return jnp.zeros((*codes.shape[:-1], count(codes.shape, size)), dtype)
