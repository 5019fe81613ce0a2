"""The largest number of each block, and the largest of the others: two reductions, shared by both moments, or one."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

ROUNDING = 2.0**-21
"""More than roundings do to a number on its way into units of its block's scale, of a GPU that divides to two units in
the last place as well."""

WINDOW = 32
"""Neighbours of the largest number that the one reduction tells apart: the bits of an integer."""


def largest_two(size: jax.Array, apart: float) -> tuple[jax.Array, jax.Array]:
    """The largest number of each block, and the largest that is below `1 - apart` times it.

    Args:
        size: not negative, float32, with blocks along the last axis.
        apart: at most 2^-20.

    Returns:
        Two arrays with 1 in the place of the last axis.
    """
    top = jnp.max(size, axis=-1, keepdims=True)
    return top, jnp.max(_others(size, top, apart), axis=-1, keepdims=True)


def _others(size: jax.Array, top: jax.Array, apart: float) -> jax.Array:
    return jnp.where(size >= top * (1 - apart), 0, size)


Found = tuple[jax.Array, jax.Array]
"""What `largest_two` gives."""


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def largest_two_of_both(sizes: Found, apart: float) -> tuple[Found, Found]:
    """`largest_two` of two arrays of one shape, in reductions that they share: a TPU reads what both depend on once."""
    tops = _largest_of_both(*sizes)
    below = _largest_of_both(*[_others(size, top, apart) for size, top in zip(sizes, tops, strict=True)])
    return (tops[0], below[0]), (tops[1], below[1])


def _largest_of_both(a: jax.Array, b: jax.Array) -> Found:
    """The largest number of each block of two arrays that are not negative."""

    def larger(one: Found, other: Found) -> Found:
        return jnp.maximum(one[0], other[0]), jnp.maximum(one[1], other[1])

    first, second = jax.lax.reduce((a, b), (jnp.float32(0), jnp.float32(0)), larger, (a.ndim - 1,))
    return first[..., None], second[..., None]


@largest_two_of_both.defjvp
def _jvp_of_both(apart: float, primals: tuple[Found], tangents: tuple[Found]) -> tuple[Any, Any]:
    def each(sizes: Found) -> tuple[Found, Found]:
        return largest_two(sizes[0], apart), largest_two(sizes[1], apart)

    return jax.jvp(each, primals, tangents)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def largest_two_at_once(size: jax.Array, apart: float) -> tuple[jax.Array, jax.Array]:
    """`largest_two` in one reduction, so that a GPU reads a leaf once; equal but for NaN and subnormal numbers.

    Which numbers are close to the largest is not known before the end. So a block keeps the bits of the largest, a mask
    with a bit for each of the float32 numbers up to 31 below it that is in the block, and the largest number below
    those. The numbers that `apart` leaves out are at most 16.
    """
    bits = jax.lax.bitcast_convert_type(size, jnp.int32)
    each = bits, jnp.ones_like(bits, jnp.uint32), jnp.full_like(bits, -1)
    none = jnp.int32(-1), jnp.uint32(0), jnp.int32(-1)
    found = jax.lax.reduce(each, none, _joined, (size.ndim - 1,))
    most, mask, below = (x[..., None] for x in found)
    top = jax.lax.bitcast_convert_type(most, jnp.float32)
    bound = jax.lax.bitcast_convert_type(top * (1 - apart), jnp.int32)
    skipped = jnp.clip(most - bound + 1, 0, WINDOW - 1)  # they are not below the bound
    mask = mask >> skipped.astype(jnp.uint32)
    rest = jnp.where(mask == 0, below, most - skipped - _lowest_bit(mask))
    return top, jax.lax.bitcast_convert_type(jnp.maximum(rest, 0), jnp.float32)


@largest_two_at_once.defjvp
def _jvp(apart: float, primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[Any, Any]:
    return jax.jvp(functools.partial(largest_two, apart=apart), primals, tangents)


Part = tuple[jax.Array, jax.Array, jax.Array]
"""The bits of the largest number of a part of a block, which of the 32 from it downwards are there, and the next."""


def _joined(one: Part, other: Part) -> Part:
    """What two parts are together."""
    most = jnp.maximum(one[0], other[0])
    (mask, below), (others, below_them) = _seen_from(most, *one), _seen_from(most, *other)
    return most, mask | others, jnp.maximum(below, below_them)


def _seen_from(most: jax.Array, own: jax.Array, mask: jax.Array, below: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A part's mask counted from the largest number of both, and the largest number that is not in it."""
    distance = most - own
    far, few = distance >= WINDOW, jnp.minimum(distance, WINDOW - 1).astype(jnp.uint32)
    # The bits that a shift by this many drops; two shifts, as one by 32 is undefined.
    dropped = jnp.where(far, mask, (mask >> 1) >> (WINDOW - 1 - few))
    first = own - _lowest_bit(dropped) - jnp.where(far, 0, WINDOW - distance)
    kept = jnp.where(far, jnp.uint32(0), mask << few)
    return kept, jnp.where(dropped == 0, below, first)


def _lowest_bit(mask: jax.Array) -> jax.Array:
    """The number of the lowest bit that is 1; 32 where there is none."""
    return jax.lax.population_count(~mask & (mask - 1)).astype(jnp.int32)
