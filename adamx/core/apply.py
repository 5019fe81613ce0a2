"""What stands around an `update`: gradients as wide as their parameters before it, and the sum with what it gives."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx.storage.codec import HALF_BITS, is_half
from adamx.trees import Tree


def widened(gradients: Tree, params: Tree) -> Tree:
    """Gradients in the dtype of their parameters where that is wider, so that updates are not rounded on their way.

    A tree that does not fit comes back as it is: the transformation says what is wrong with it.
    """
    if jax.tree.structure(gradients) != jax.tree.structure(params):
        return gradients

    def leaf(g: Any, p: Any) -> Any:
        if not all(jnp.issubdtype(getattr(x, "dtype", type(x)), jnp.inexact) for x in (g, p)):
            return g
        own, wider = jnp.result_type(g), jnp.promote_types(jnp.result_type(g), jnp.result_type(p))
        narrow = jnp.finfo(own).bits < jnp.finfo(jnp.result_type(p)).bits
        return jnp.asarray(g).astype(wider) if narrow and jnp.iscomplexobj(g) == jnp.iscomplexobj(p) else g

    return jax.tree.map(leaf, gradients, params)


def apply_updates(params: Tree, updates: Tree) -> Tree:
    """`optax.apply_updates`, which has no sum for float8 parameters: theirs is taken in float32 and rounded."""

    def summable(p: Any) -> Any:
        dtype = getattr(p, "dtype", int)
        return p.astype(jnp.float32) if is_half(dtype) and jnp.finfo(dtype).bits < HALF_BITS else p

    def rounded(p: Any, moved: Any) -> Any:
        return moved.astype(p.dtype) if hasattr(p, "dtype") else moved

    with jax.numpy_dtype_promotion("standard"):  # a sum of a half-precision parameter and a float32 update is meant
        moved = optax.apply_updates(jax.tree.map(summable, params), updates)
    return jax.tree.map(rounded, params, moved)
