"""A branch of the compiled step between what a step does and what stands in its place."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from adamx import shards
from adamx.core.step import Pass, Weights, landed, measured
from adamx.trees import Tree


def branch(go: jax.Array, taken: Callable[[], Tree], kept: Callable[[Any], Tree]) -> Any:
    """What `taken` gives where `go` is true, else what `kept` gives, in the types of `taken`.

    Args:
        go: a boolean scalar.
        taken: gives a tree of arrays.
        kept: gives a tree of the same structure, from that of the shapes.
    """
    program, shapes = jax.make_jaxpr(taken, return_shape=True)()
    treedef = jax.tree.structure(shapes)

    def as_taken(x: Any, kind: Any) -> jax.Array:
        return shards.vary_as(jnp.asarray(x).astype(kind.dtype), kind)

    def instead() -> Tree:
        leaves = treedef.flatten_up_to(kept(shapes))
        return treedef.unflatten(map(as_taken, leaves, program.out_avals))

    return jax.lax.cond(go, taken, instead)


def no_updates(shapes: Tree) -> Tree:
    """Zeros in the place of updates."""
    return jax.tree.map(jnp.zeros_like, shapes)


def no_step(weights: Weights, told: Pass) -> Weights:
    """The weights in the place of those after a step; what stands behind the optimizer still acts on them."""
    decays = any(term.decay is not None for tail in told.tails for term in tail.terms)
    return landed(weights, no_updates(weights.wide()), told) if decays else measured(weights, told)
