"""Whether a tree is finite."""

import functools

import jax
import jax.numpy as jnp

from adamx import numerics
from adamx.trees import Tree


def all_finite(tree: Tree) -> jax.Array:
    """Whether no leaf has a NaN or infinite element; leaves that are no floating arrays count as finite.

    One compiled function, also outside jit: `jax_debug_nans` sees its answer alone, not the NaN that it looks for.
    """
    leaves = jax.tree.leaves(tree)
    return _all_finite([x for x in leaves if jnp.issubdtype(getattr(x, "dtype", type(x)), jnp.inexact)])


@functools.partial(jax.jit, inline=True)
def _all_finite(leaves: list[jax.Array]) -> jax.Array:
    return jnp.all(jnp.stack([numerics.is_finite(x) for x in leaves] or [jnp.bool_(True)]))
