"""A step that is taken or left out: the device decides, and nothing is copied for it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from adamx import shards
from adamx.core.step import Pass, Weights, landed
from adamx.trees import Tree

Take = Callable[[optax.OptState], tuple[Tree, optax.OptState]]
"""From the state to what moves (updates, or weights) and the state."""

Keep = Callable[[Tree], Tree]
"""What stands in place of what moves, from its shapes."""


def branch(taken: jax.Array, take: Take, keep: Keep, state: optax.OptState) -> tuple[Tree, optax.OptState]:
    """The step where `taken` is true, else nothing, in the same types.

    Args:
        taken: a boolean scalar.
        take: the step.
        keep: what moves if it is not taken.
        state: before the step, which stays if it is not taken.

    Returns:
        What moves, and the state.
    """

    def step() -> tuple[Tree, optax.OptState]:
        return take(state)

    program, shapes = jax.make_jaxpr(step, return_shape=True)()
    treedef = jax.tree.structure(shapes)

    def as_taken(x: jax.Array, kind: jax.Array) -> jax.Array:
        return shards.vary_as(jnp.asarray(x).astype(kind.dtype), kind)

    def kept() -> tuple[Tree, optax.OptState]:
        leaves = treedef.flatten_up_to((keep(shapes[0]), state))
        return treedef.unflatten(map(as_taken, leaves, program.out_avals))

    return jax.lax.cond(taken, step, kept)


def no_updates(shapes: Tree) -> Tree:
    """Zeros in the place of updates."""
    return jax.tree.map(jnp.zeros_like, shapes)


def no_step(weights: Weights, told: Pass, _: Tree) -> Weights:
    """The weights in the place of those after a step; what stands behind the optimizer still acts on them."""
    decays = any(any(tail.decays) for tail in told.tails)
    return landed(weights, no_updates(weights.wide()), told) if decays else weights
