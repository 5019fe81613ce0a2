"""Half-precision leaves as float32."""

from typing import Any

import jax
import jax.numpy as jnp

from adamx.core.leaf import to_float32
from adamx.storage.codec import is_half
from adamx.trees import Tree, map_leaves


def tree_to_float32(tree: Tree) -> Tree:
    """The same for every leaf of a tree of arrays."""

    def leaf(x: jax.Array) -> tuple[jax.Array]:
        return (to_float32(x),)

    return map_leaves(leaf, 1, tree)[0]


def start_in_float32(params: Tree) -> Tree:
    """The parameters that the wrapped transformation is initialized with; a `jax.ShapeDtypeStruct` stays one."""

    def start(p: Any) -> Any:
        if not is_half(getattr(p, "dtype", float)):
            return p
        if isinstance(p, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(p.shape, jnp.float32, sharding=p.sharding)
        return to_float32(p)

    return jax.tree.map(start, params)
