"""Half-precision leaves as float32."""

from typing import Any

import jax
import jax.numpy as jnp

from adamx.storage.codec import HALF_BITS
from adamx.storage.split import widen
from adamx.trees import Tree, map_leaves


def is_half(dtype: Any) -> bool:
    """Whether a dtype is real, floating and narrower than float32."""
    return jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits <= HALF_BITS


def to_float32(x: Any) -> jax.Array:
    """Half precision as float32, exactly; anything wider as it is."""
    dtype = jnp.result_type(x)
    if dtype == jnp.bfloat16:
        return widen(jnp.asarray(x))
    return jnp.asarray(x, jnp.float32) if is_half(dtype) else jnp.asarray(x)


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
