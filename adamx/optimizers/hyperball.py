"""Hyperball: matrices that keep their norm, and move by a share of it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx.core.errors import check_params
from adamx.core.leaf import to_float32
from adamx.core.rate import scale_by_lr
from adamx.numerics import Scalar, divide, square
from adamx.trees import Tree, map_leaves


def scale_by_hyperball(
    learning_rate: Scalar | optax.Schedule, mask: Tree | Callable[[Tree], Tree] | None = None
) -> optax.GradientTransformation:
    """Steps along a direction u and keeps the Frobenius norm of each matrix, in place of `scale_by_lr`.

    `W_t = R Normalize(W_{t-1} - α_t R Normalize(u_t))` with `R = ‖W_{t-1}‖` and `Normalize(x) = x / ‖x‖`, so that the
    norm stays what it was at the start and α is the angle of a step. Other leaves take `-α_t u_t`. Behind
    `scale_by_adam` it is AdamH. It stands in the place of weight decay.

    Wen, Dang, Lyu, Ma & Liang, "Fantastic Pretraining Optimizers and Where to Find Them II: Hyperball Optimization"
    (2026), arXiv 2606.16899. R is the norm at hand, as in Levanter's `scale_by_adamh`: no state is needed, and in
    float32 it drifts by rounding alone. For half-precision parameters put `with_master_weights` around the chain. The
    last two axes of a leaf are a matrix, those in front of them count matrices. A matrix of zeros stays as it is. The
    step is `update` and `apply_updates`. Inside `jax.shard_map` a matrix must be whole on its device.

    Args:
        learning_rate: α, about √(α λ) of AdamW with weight decay λ; or a schedule.
        mask: which leaves are matrices, a tree of booleans or a function from the parameters to one; None: those of two
            or more axes.

    Returns:
        A stage whose update needs the parameters; updates of matrices are float32 or wider.

    Raises:
        ValueError: as `scale_by_lr` does; at update, no parameters.
        TypeError: as `scale_by_lr` does.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> tx = optax.chain(adamx.scale_by_adam(), adamx.optimizers.scale_by_hyperball(0.1))
        >>> params = {"kernel": jnp.array([[3.0, 4.0]])}
        >>> updates, state = tx.update({"kernel": jnp.array([[1.0, 0.0]])}, tx.init(params), params)
        >>> jnp.linalg.norm(params["kernel"] + updates["kernel"]).round(5)
        Array(5., dtype=float32)
    """
    on = _matrices if mask is None else mask
    to_radius, onto_sphere = (optax.masked(optax.stateless(_each(f)), on) for f in (_to_radius, _onto_sphere))
    return optax.chain(to_radius, scale_by_lr(learning_rate), onto_sphere)


def _matrices(tree: Tree) -> Tree:
    def is_matrix(x: Any) -> bool:
        return jnp.ndim(x) >= 2

    return jax.tree.map(is_matrix, tree)


def _each(formula: Callable[[jax.Array, jax.Array], jax.Array]) -> Callable[[Any, Any], Any]:
    def leaf(u: Any, w: Any) -> tuple[jax.Array]:
        return (formula(to_float32(u), to_float32(w)),)

    return lambda updates, params: map_leaves(leaf, 1, updates, check_params("scale_by_hyperball", params))[0]


def _norm(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(square(x), axis=(-2, -1), keepdims=True))


def _to_radius(u: jax.Array, w: jax.Array) -> jax.Array:
    length = _norm(u)
    return _norm(w) * divide(u, jnp.where(length > 0, length, 1))


def _onto_sphere(u: jax.Array, w: jax.Array) -> jax.Array:
    moved = w + u
    length = _norm(moved)
    return moved * (_norm(w) / jnp.where(length > 0, length, 1)) - w
