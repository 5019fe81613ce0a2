"""The norms of one leaf in a step: of its gradient, of what is added to its weight, of its weight after the step."""

import functools
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from adamx.norm import sum_of_squares

Norms = tuple[jax.Array, ...]
"""For each leaf float32 numbers of shape (3,)."""


def norm(x: Any) -> jax.Array:
    """The root of the sum of squares, a float32 scalar, summed in float32 or wider."""
    x = jnp.asarray(x)
    wide = x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.float32)
    return jnp.sqrt(sum_of_squares(wide)).astype(jnp.float32)


@functools.partial(jax.jit, inline=True)
def leaf_norms(gradient: Any, update: Any, weight: Any) -> jax.Array:
    """The norms of one leaf; an update that is None is 0."""
    return jnp.stack([norm(gradient), jnp.zeros([], jnp.float32) if update is None else norm(update), norm(weight)])


def of_given(norms: Sequence[Any], gradients: Sequence[Any], given: Sequence[Any] | None) -> Norms | None:
    """Norms of a pass, with those of other gradients where the pass got what a stage had made of them.

    Args:
        norms: of each leaf, from the pass.
        gradients: that the pass got.
        given: the gradients whose norms are asked for; None: no norm is.
    """
    if given is None:
        return None
    pairs = zip(norms, gradients, given, strict=True)
    return tuple(x if g is wanted else jnp.concatenate([norm(wanted)[None], x[1:]]) for x, g, wanted in pairs)


def are(gradients: Sequence[Any], given: Sequence[Any] | None) -> bool:
    """Whether gradients are the very arrays whose norms are asked for."""
    return given is not None and len(given) == len(gradients) and all(map(operator.is_, gradients, given))
