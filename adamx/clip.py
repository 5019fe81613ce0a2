"""Gradients clipped by their norm: one number that a step multiplies by."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx import hyperparameters, numerics
from adamx.core.errors import check_empty
from adamx.core.stages import no_state
from adamx.core.step import Update
from adamx.hyperparameters import names_hints
from adamx.norm import global_norm
from adamx.numerics import Scalar
from adamx.trees import Tree, check_leaves, map_leaves


@names_hints
def clip_by_global_norm(max_norm: Scalar) -> optax.GradientTransformationExtraArgs:
    """Clips gradients by the norm of all of them, `g ← g min(1, max_norm / ‖g‖)`.

    Pascanu, Mikolov & Bengio, "On the Difficulty of Training Recurrent Neural Networks" (2013), arXiv 1211.5063,
    Algorithm 1. In float32 the updates are bitwise identical to those of `optax.clip_by_global_norm`. The norm is taken
    in float32 whatever the gradients are, and does not overflow. In `adamx.chain` a step reads the gradients once more
    for the norm, and the optimizer's pass multiplies them by the factor.

    Args:
        max_norm: what the norm is clipped to, >= 0, in units of the gradient.

    Returns:
        A stateless transformation in the dtypes that came.

    Raises:
        ValueError: max_norm negative, infinite or NaN.
        TypeError: max_norm not a number; at update, leaves that are no floating arrays.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.clip_by_global_norm(1.0)
        >>> tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))[0]
        Array([0.6, 0.8], dtype=float32)
    """
    limit = hyperparameters.nonnegative("max_norm", max_norm)

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        check_leaves("gradient", updates)
        norm = global_norm(updates)
        divisor = _divisor(norm, limit)

        def clipped(g: jax.Array) -> tuple[jax.Array]:
            wide = jnp.asarray(g, numerics.compute_dtype(jnp.result_type(g)))
            real = numerics.real_dtype(wide.dtype)
            over = numerics.divide(wide, divisor.astype(real)) * numerics.as_scalar(limit, real)
            return (jnp.where(norm < limit, wide, over).astype(jnp.result_type(g)),)

        return map_leaves(clipped, 1, updates)[0], check_empty(state)

    def factor(gradients: Tree, state: Any, so_far: Scalar | None) -> tuple[Scalar, Any]:
        check_leaves("gradient", gradients)
        norm = global_norm(gradients)
        norm = norm if so_far is None else norm * so_far
        clip = jnp.where(norm < limit, 1.0, limit / _divisor(norm, limit))
        return clip if so_far is None else so_far * clip, check_empty(state)

    return optax.GradientTransformationExtraArgs(no_state, Update(update, factor=factor))


def _divisor(norm: jax.Array, limit: Scalar) -> jax.Array:
    """The norm, and 1 where nothing is clipped: a quotient that is not chosen must not make the derivative NaN."""
    return jnp.where((norm < limit) | (norm == 0), jnp.ones_like(norm), norm)
