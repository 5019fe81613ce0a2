"""A step that is taken where gradients are finite: a branch around the whole of it, or around that of each leaf."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamx import numerics
from adamx.guard.leafwise import Leaves, crossing
from adamx.trees import Tree, check_fits


class Attempt(NamedTuple):
    """A step that may be taken or not.

    Attributes:
        take: from transformation, gradients, state and parameters to what moves (updates, or parameters) and the state.
        keep: what stands in place of what moves: from its shapes and the parameters.
        extra: what the transformation's update gets besides.
    """

    take: Callable[..., tuple[Tree, optax.OptState]]
    keep: Callable[[Tree, Tree], Tree]
    extra: dict[str, Any]


def is_finite(x: Any) -> jax.Array:
    """Whether no element is NaN or infinite. The largest magnitude tells, without an array of answers in memory.

    What is no floating number is finite here: the transformation leaves it out, or says what it is and where.
    """
    if not jnp.issubdtype(getattr(x, "dtype", type(x)), jnp.inexact):
        return jnp.bool_(True)
    x = jnp.asarray(x)
    if jnp.iscomplexobj(x):
        return is_finite(x.real) & is_finite(x.imag)
    largest = jnp.max(jnp.abs(x), initial=0)
    return jnp.isfinite(largest.astype(numerics.compute_dtype(x.dtype)))  # float8 has no infinity to compare with


def no_updates(shapes: Tree, params: Tree) -> Tree:
    """What `keep` gives where updates move: zeros."""
    return jax.tree.map(jnp.zeros_like, shapes)


def same_params(shapes: Tree, params: Tree) -> Tree:
    """What `keep` gives where parameters move: the parameters."""
    return params


def _as(x: Any, like: jax.ShapeDtypeStruct) -> jax.Array:
    return jnp.asarray(x).astype(like.dtype)


def _branch(
    clean: jax.Array, tx: Any, one: Attempt, gradients: Tree, state: optax.OptState, params: Tree, extra: dict[str, Any]
) -> tuple[Tree, optax.OptState]:
    """The step where all is clean, else nothing, in the same types."""

    def taken() -> tuple[Tree, optax.OptState]:
        return one.take(tx, gradients, state, params, **extra)

    shapes = jax.eval_shape(taken)

    def kept() -> tuple[Tree, optax.OptState]:
        return jax.tree.map(_as, (one.keep(shapes[0], params), state), shapes)

    return jax.lax.cond(clean, taken, kept)


def by_step(
    tx: Any, one: Attempt, gradients: Tree, state: optax.OptState, params: Tree
) -> tuple[jax.Array, Tree, optax.OptState]:
    """One branch around the whole step."""
    clean = jnp.all(jnp.stack([is_finite(g) for g in jax.tree.leaves(gradients)] or [jnp.bool_(True)]))
    return clean, *_branch(clean, tx, one, gradients, state, params, one.extra)


def by_leaf(
    tx: Any, one: Attempt, gradients: Tree, state: optax.OptState, params: Tree
) -> tuple[Tree, Tree, optax.OptState]:
    """A branch around the step of each leaf."""
    if params is not None:
        check_fits(gradients, params)
    problem = crossing(tx, gradients, state, params, **one.extra)
    if problem:
        raise TypeError(
            f'skip_nonfinite(scope="leaf") steps leaf by leaf, but {problem}: use scope="step", or take what looks '
            "across leaves, clipping by the global norm say, out of it"
        )
    leaves = Leaves(tx, jax.tree.structure(gradients))
    own, shared = leaves.apart(state)
    clean: list[jax.Array] = []
    moved: list[Any] = []
    rest: list[list[Any]] = []
    for i, g in enumerate(jax.tree.leaves(gradients)):
        clean.append(is_finite(g))
        alone = leaves.together(state, [part if k == i else [] for k, part in enumerate(own)], shared)
        of_leaf = [leaves.only(i, tree) for tree in (gradients, params, *one.extra.values())]
        extra = dict(zip(one.extra, of_leaf[2:], strict=True))
        here, after = _branch(clean[i], tx, one, of_leaf[0], alone, of_leaf[1], extra)
        moved += jax.tree.leaves(here)
        after_own, after_shared = leaves.apart(after)
        own[i] = after_own[i]
        rest.append(after_shared)
    if not clean:
        return gradients, *one.take(tx, gradients, state, params, **one.extra)
    first = jnp.argmax(jnp.stack(clean))
    shared = [jnp.stack(same)[first] for same in zip(*rest, strict=True)]
    return leaves.treedef.unflatten(clean), leaves.treedef.unflatten(moved), leaves.together(state, own, shared)
