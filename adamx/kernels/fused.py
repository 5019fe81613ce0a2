"""`adam` and `adamw` that carry a step in one pass."""

import dataclasses

import optax
from jax.typing import DTypeLike

from adamx.core.decay import Mask
from adamx.core.rate import ScalarOrSchedule
from adamx.core.update import Update
from adamx.hyperparameters import names_hints
from adamx.kernels.recipe import Recipe
from adamx.numerics import Scalar

BACKENDS = ("auto", "xla")


@dataclasses.dataclass(frozen=True, eq=False)
class Fused(Update):
    """The update of `adam` or `adamw`, with what `adamx.step` needs to take the step in one pass.

    Attributes:
        function: the composed update.
        recipe: the hyperparameters.
        backend: "auto": native code where there is some; "xla": XLA's own code everywhere.
    """

    recipe: Recipe
    backend: str


def fused(recipe: Recipe, backend: str = "auto") -> optax.GradientTransformationExtraArgs:
    """The optimizer that a recipe describes, with its step in one pass."""
    if backend not in BACKENDS:
        raise ValueError(f'backend must be "auto" or "xla", got {backend!r}')
    tx = recipe.build()
    return optax.GradientTransformationExtraArgs(tx.init, Fused(tx.update, recipe, backend))


@names_hints
def fused_adam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    nu_dtype: DTypeLike | None = None,
    precise: bool = False,
    backend: str = "auto",
) -> optax.GradientTransformationExtraArgs:
    """`adam` with its step in one pass over memory, taken by `adamx.step`.

    Arguments, state, updates and errors are those of `adam`: a checkpoint of one continues in the other, and through
    `update`, in `optax.chain` say, it is `adam`.

    Args:
        learning_rate: see `adam`, as for all that follow but the last.
        b1: likewise.
        b2: likewise.
        eps: likewise.
        eps_root: likewise.
        mu_dtype: likewise.
        nesterov: likewise.
        nu_dtype: likewise.
        precise: likewise.
        backend: "auto": the native kernel where it is built and a leaf is of a kind that it takes, else XLA;
            "xla": XLA everywhere.

    Returns:
        A transformation for `adamx.step`.

    Raises:
        ValueError, TypeError: as `adam` does; a backend of another name.

    Example:
        >>> import jax, jax.numpy as jnp, adamx
        >>> tx, x = adamx.fused_adam(0.1), jnp.array([1.0, 2.0])
        >>> step = jax.jit(lambda x, state: adamx.step(tx, 2 * x, state, x), donate_argnums=(0, 1))
        >>> state = tx.init(x)
        >>> for _ in range(100):
        ...     x, state = step(x, state)
        >>> bool(jnp.sum(x**2) < 1e-2)
        True
    """
    first = (learning_rate, b1, b2, eps, eps_root, mu_dtype)
    return fused(Recipe(*first, 0.0, None, nesterov, nu_dtype, precise, decoupled=False), backend)


@names_hints
def fused_adamw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask | None = None,
    *,
    nesterov: bool = False,
    nu_dtype: DTypeLike | None = None,
    precise: bool = False,
    backend: str = "auto",
) -> optax.GradientTransformationExtraArgs:
    """`adamw` with its step in one pass over memory, taken by `adamx.step`.

    Arguments, state, updates and errors are those of `adamw`; `backend` as in `fused_adam`.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx, x = adamx.fused_adamw(0.1, weight_decay=0.5), jnp.ones(1)
        >>> x, state = adamx.step(tx, jnp.zeros(1), tx.init(x), x)
        >>> x
        Array([0.95], dtype=float32)
    """
    first = (learning_rate, b1, b2, eps, eps_root, mu_dtype, weight_decay, mask)
    return fused(Recipe(*first, nesterov, nu_dtype, precise, decoupled=True), backend)
