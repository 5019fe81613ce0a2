"""Thresholds for dithered rounding: a walk through [0, 1) for every element, in integers.

Rounded to nearest, a slow average stalls: the change of one step is less than half a unit of the stored number. Here an
element rounds up where the part that does not fit exceeds a threshold that moves on with every step,

    u = hash(salt, index / 16) + (index mod 16) × spread + step × stride    (modulo 2^32, read as a fraction of 1).

Over steps those of an element are a low-discrepancy sequence (Weyl, 1916): its stride is close to the golden ratio or
to one of three relatives, numbers that fractions approximate as badly as any, so that after n steps it has rounded up n
times the mean fraction give or take O(log n), where independent draws are off by O(√n). Four strides instead of one,
because gradients that repeat after a denominator of those fractions, 89 or 144 steps, meet nearly the same thresholds
again: now that happens to a part of the elements.

Over elements the thresholds of a step are uniform. Sixteen neighbours share a hash and are strata: those with the same
stride lie at equal distances, so that of sixteen alike as many round up as their fraction says, give or take four. One
hash a vector is little to a processor that works on vectors, and calculates it beside them.

The lower 16 bits of a threshold are such a walk as well, by another stride. So one hash serves both moments: v takes
the threshold, m its lower half.

A threshold is a pure function of salt, step and global index: there is no key to carry, a resumed run continues with
the same bits, and shards compute what the whole would have computed.
"""

import math
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from adamx.trees import Tree, path_name
from adamx.variables import flatten_with_path

STRIDES = (0x9E35BB67, 0xB93F9635, 0x9482B8A3, 0xB44E9CFD)
"""2^32 times numbers near those whose continued fractions begin with 1; 1, 2; 1, 1, 2; 1, 2, 2 and go on with ones.

Chosen so that no entry is above 3 up to denominators of 12,000 and, of the lower halves over 2^16, above 2 up to 200.
"""

MOMENTS, PARAMETER, GRADIENT, AVERAGE = 0, 1, 2, 3
"""What is rounded: each has a walk of its own."""

SPREAD = 0x70005000
"""From one neighbour to the next: 7 sixteenths, and 5 of the lower half. Pairs of both are spread over the square."""

GOLDEN = 0x9E377490
"""From one row to the next; the rows of up to a billion elements share no hash."""

_GROUP = 4  # bits of a place that tell the neighbours apart which share a hash
_BITS = 0xFFFFFFFF
_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B  # odd multipliers that mix well


def _mix(x: int) -> int:
    """A bijection of 32-bit integers under which close arguments part, for constants."""
    x = ((x ^ (x >> 16)) * _FIRST) & _BITS
    x = ((x ^ (x >> 15)) * _SECOND) & _BITS
    return x ^ (x >> 16)


def leaf_salt(path: str, what: int = MOMENTS, seeds: Sequence[int] = ()) -> np.uint32:
    """What tells the thresholds of one leaf from those of others, of other numbers in it and of other seeds."""
    salt = zlib.crc32(path.encode())
    for number in (what, *seeds):
        salt = _mix(salt ^ _mix((number + 1) & _BITS))
    return np.uint32(salt >> _GROUP << _GROUP)


def along(axis_from_last: int) -> np.uint32:
    """What an index adds to the place of its element; the last axis is 1. A row begins where a group does."""
    others = ((_mix(axis_from_last) | 1) << _GROUP) & _BITS
    return np.uint32({1: 1, 2: GOLDEN}.get(axis_from_last, others))


def place(salt: Any, offset: Sequence[Any] | None = None) -> jax.Array:
    """The place of an array's first element, before it is hashed: the salt, moved by where its shard begins."""
    x = jnp.asarray(salt, jnp.uint32)
    offset = offset or ()
    for axis, start in enumerate(offset):
        x = x + jnp.asarray(_wrapped(start)) * along(len(offset) - axis)
    return x


def _wrapped(index: Any) -> Any:
    """An index modulo 2^32, as uint32; a number of any size."""
    return np.uint32(int(index) & _BITS) if isinstance(index, int) else jnp.asarray(index).astype(jnp.uint32)


def thresholds(shape: Sequence[int], salt: Any, step: Any, offset: Sequence[Any] | None = None) -> jax.Array:
    """The thresholds of an array in one step.

    Args:
        shape: of the array, or of the shard of it that is at hand.
        salt: of the leaf, a uint32 scalar.
        step: a uint32 scalar that counts up and wraps.
        offset: where the shard begins in the whole array, one index an axis; None: at 0.

    Returns:
        Uint32 of the shape: 2^32 times the threshold.
    """
    # Behind the barrier compilers do not know the salt, so that leaves of one shape share their kernels.
    x = jax.lax.optimization_barrier(place(salt, offset))
    for axis in range(len(shape)):
        x = x + jax.lax.broadcasted_iota(jnp.uint32, tuple(shape), axis) * along(len(shape) - axis)
    return thresholds_at(x, step)


def thresholds_at(places: jax.Array, step: Any) -> jax.Array:
    """The thresholds of elements whose places are known: `place` of the first one, moved by `along` each axis."""
    x = places >> _GROUP
    x = (x ^ (x >> 16)) * np.uint32(_FIRST)
    x = (x ^ (x >> 15)) * np.uint32(_SECOND)
    neighbour, turned = places & ((1 << _GROUP) - 1), places + x
    first, second = turned & 1, turned & 2
    strides = [np.uint32(stride) for stride in STRIDES]
    even, odd = (jnp.where(second == 0, *strides[i::2]) for i in (0, 1))
    stride = jnp.where(first == 0, even, odd)
    return x + neighbour * np.uint32(SPREAD) + jnp.asarray(step, jnp.uint32) * stride


def fraction(bits: jax.Array) -> jax.Array:
    """Thresholds as float32 in [0, 1), their upper 23 bits exactly."""
    return (bits >> 9).astype(jnp.float32) * math.ldexp(1, -23)


def lower_half(bits: jax.Array) -> jax.Array:
    """The threshold in the lower 16 bits of another one."""
    return bits << 16


class Thresholds(Protocol):
    """What gives the thresholds of an array in a step."""

    def thresholds(self, shape: Sequence[int], /) -> jax.Array:
        """Uint32 of the shape: 2^32 times the threshold."""
        ...


class Walk(NamedTuple):
    """What the thresholds of one leaf in one step depend on.

    Attributes:
        salt: of the leaf, see `leaf_salt`.
        step: a uint32 scalar.
        offset: where the shard at hand begins in the leaf, one index an axis, or None.
    """

    salt: Any
    step: Any
    offset: tuple[Any, ...] | None = None

    def thresholds(self, shape: Sequence[int]) -> jax.Array:
        """The thresholds for an array."""
        return thresholds(shape, self.salt, self.step, self.offset)


def walks(tree: Tree, step: Any, what: int, seeds: Sequence[int], offsets: Tree | None = None) -> Tree:
    """A tree with the walk of each leaf in its place.

    Args:
        tree: of arrays.
        step: a counter.
        what: MOMENTS, PARAMETER or AVERAGE.
        seeds: of the codecs or of the parameter's rounding.
        offsets: a tree with a tuple of indices in the place of each leaf, where its shard begins.
    """
    wrapping = jnp.asarray(step).astype(jnp.uint32)
    found, treedef = flatten_with_path(tree)
    places = [None] * len(found) if offsets is None else [tuple(place) for place in treedef.flatten_up_to(offsets)]

    def walk(path: Any, place: tuple[Any, ...] | None) -> Walk:
        return Walk(leaf_salt(path_name(path), what, seeds), wrapping, place)

    return treedef.unflatten([walk(path, place) for (path, _), place in zip(found, places, strict=True)])


def shard_offsets(tree: Tree, specs: Tree) -> Tree:
    """Where each shard begins in its leaf: the extra argument `dither_offset` inside `jax.shard_map`.

    Args:
        tree: of local arrays.
        specs: a `jax.sharding.PartitionSpec` for all leaves, or a tree with one in the place of each.

    Returns:
        A tree with a tuple of indices in the place of each leaf.

    Example:
        >>> import jax, jax.numpy as jnp, adamx
        >>> spec, mesh = jax.sharding.PartitionSpec("data"), jax.sharding.Mesh(jax.devices()[:1], ("data",))
        >>> tx = adamx.adam(0.1, nu_dtype="bfloat16")
        >>> def first_step(g):
        ...     return tx.update(g, tx.init(g), dither_offset=adamx.storage.shard_offsets(g, spec))[0]
        >>> jax.shard_map(first_step, mesh=mesh, in_specs=spec, out_specs=spec)(jnp.ones(2)).round(3)
        Array([-0.1, -0.1], dtype=float32)
    """

    def start(axes: Any, size: int) -> Any:
        names = () if axes is None else axes if isinstance(axes, tuple) else (axes,)
        index = 0
        for name in names:
            index = index * jax.lax.psum(1, name) + jax.lax.axis_index(name)
        return _wrapped(index) * np.uint32(size & _BITS)

    def leaf(x: Any, spec: Any) -> tuple[Any, ...]:
        padded = tuple(spec) + (None,) * (jnp.ndim(x) - len(spec))
        return tuple(start(axes, size) for axes, size in zip(padded, jnp.shape(x), strict=True))

    leaves, treedef = jax.tree.flatten(tree)
    one = isinstance(specs, jax.sharding.PartitionSpec)
    each = [specs] * len(leaves) if one else treedef.flatten_up_to(specs)
    return treedef.unflatten([leaf(x, spec) for x, spec in zip(leaves, each, strict=True)])
