"""The norm of a tree, inside `jax.shard_map` too."""

import operator
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamx import numerics, shards
from adamx.trees import Tree

SMALL = 2.0**-64
"""What numbers are multiplied by whose squares overflow."""


_KNOWN: ContextVar[tuple[list[Any], jax.Array] | None] = ContextVar("known", default=None)
"""The leaves of a tree and their norm."""


@contextmanager
def known_norm(tree: Tree, norm: jax.Array | None) -> Generator[None]:
    """Inside, `global_norm` of the same arrays is this number, so that a branch does not read them again.

    XLA finds equal computations outside a branch, and inside it, but not across.
    """
    token = _KNOWN.set(None if norm is None else (jax.tree.leaves(tree), norm))
    try:
        yield
    finally:
        _KNOWN.reset(token)


def _known(leaves: list[Any]) -> jax.Array | None:
    known = _KNOWN.get()
    if known is None or len(known[0]) != len(leaves) or any(map(operator.is_not, known[0], leaves)):
        return None
    return known[1]


def global_norm(tree: Tree, own: frozenset[str] | None = None) -> jax.Array:
    """The root of the sum of the squares of all elements, in float32 or wider, for gradients of any size and dtype.

    Squares that overflow are taken again, of smaller numbers: on a branch, which costs nothing where they do not.

    Args:
        tree: of floating arrays.
        own: inside `jax.shard_map`, what the counter of the state varies over: the sum goes over the shards of each
            leaf, see `adamx.shards`. None: the sum goes over what is on this device.
    """
    known = _known(jax.tree.leaves(tree)) if own is None else None
    if known is not None:
        return known
    leaves = [jnp.asarray(x) for x in jax.tree.leaves(tree) if jnp.size(x)]
    if not leaves:
        return jnp.zeros([])
    axes = [() if own is None else shards.axes_of(own, x) for x in leaves]

    def root(factor: float) -> jax.Array:
        sums: dict[shards.Axes, jax.Array] = {}
        for x, over in zip(leaves, axes, strict=True):
            part = sum_of_squares(x, factor)
            sums[over] = _plus(sums[over], part) if over in sums else part
        first, *others = (shards.total(x, over) for over, x in sums.items())
        for other in others:
            first = _plus(first, other)
        return numerics.root(first)

    norm = root(1.0)
    return jax.lax.cond(jnp.isinf(norm), lambda: root(SMALL) / SMALL, lambda: norm)


def _plus(a: jax.Array, b: jax.Array) -> jax.Array:
    """The sum in the wider of two dtypes, also where promotion is strict."""
    wide = np.promote_types(a.dtype, b.dtype)
    return a.astype(wide) + b.astype(wide)


def sum_of_squares(x: jax.Array, factor: float = 1) -> jax.Array:
    """The sum of the squares of the elements times a factor, in float32 or wider."""
    wide = x.astype(numerics.compute_dtype(x.dtype))
    return jnp.sum(numerics.square(wide if factor == 1 else wide * factor))


def of_parts(norms: jax.Array, axes: shards.Axes = ()) -> jax.Array:
    """The norm of a whole from those of its parts, `√Σn²`, without squares that overflow or vanish.

    Args:
        norms: of the parts, along the first axis.
        axes: of the mesh over whose shards the parts go on.
    """
    if not norms.shape[0]:
        return jnp.zeros(norms.shape[1:], norms.dtype)
    top = shards.largest(jnp.max(norms, axis=0), axes)
    unit = jnp.where((top > 0) & (top < jnp.inf), top, 1)
    return unit * jnp.sqrt(shards.total(jnp.sum((norms / unit) ** 2, axis=0), axes))
