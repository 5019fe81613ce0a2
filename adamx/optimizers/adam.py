"""Adam, Kingma & Ba (2015): the three stages in a row."""

import optax
from jax.typing import DTypeLike

from adamx import hyperparameters
from adamx.core.averages import averages_of, of_squares
from adamx.core.chain import chain, join
from adamx.core.moments import moments_of
from adamx.core.one_pass import adam_step
from adamx.core.rate import ScalarOrSchedule, scale_by_lr
from adamx.core.stages import bias_correction
from adamx.core.step import Update
from adamx.hyperparameters import flag, names_hints
from adamx.numerics import Scalar
from adamx.optimizers.nesterov import nesterov as look_ahead


@names_hints
def scale_by_adam(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    nu_dtype: DTypeLike | None = None,
    precise: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Stages 1 and 2 joined: gradients in, direction out, one `MomentsState` kept.

    The arguments come in the order of `optax.scale_by_adam`.

    Args:
        b1: β1 in [0, 1), how much of m a step keeps.
        b2: β2 in [0, 1), how much of v a step keeps.
        eps: ε >= 0, added to the root of v, see `bias_correction`.
        eps_root: ε_root >= 0, added to v inside the root.
        mu_dtype: the dtype or codec that stores m, None: float32 or wider, see `scale_by_moments`.
        nesterov: Nesterov's momentum, see the stage `nesterov`.
        nu_dtype: the dtype or codec that stores v, None: float32 or wider, see `scale_by_moments`.
        precise: exact for β1 and β2 close to 1, not bitwise identical to optax, see `scale_by_moments`.

    Returns:
        A transformation from gradients to the direction in their dtype; its state is `MomentsState`.

    Raises:
        ValueError, TypeError: as the stages do.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.scale_by_adam()
        >>> tx.update(jnp.array([-3.0]), tx.init(jnp.zeros(1)))[0]
        Array([-0.9999934], dtype=float32)
    """
    averages = averages_of(of_squares, b1, b2, mu_dtype, nu_dtype, precise)
    between = [look_ahead()] if flag("nesterov", nesterov) else []
    composed = join(moments_of(averages), *between, bias_correction(eps, eps_root))
    eps, eps_root = hyperparameters.nonnegative("eps", eps), hyperparameters.nonnegative("eps_root", eps_root)
    step = adam_step(averages, eps, eps_root, nesterov)
    return composed._replace(update=Update(composed.update, step))


@names_hints
def adam(
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
) -> optax.GradientTransformationExtraArgs:
    """Adam, a drop-in for `optax.adam`: the same arguments, updates and layout of the state.

    `θ_t = θ_{t-1} - α m̂_t / (√(v̂_t + ε_root) + ε)`.

    Kingma & Ba, "Adam: A Method for Stochastic Optimization" (2015), arXiv 1412.6980, Algorithm 1.

    Args:
        learning_rate: α, a number or a schedule over the step count, see `scale_by_lr`.
        b1: β1 in [0, 1), how much of m a step keeps.
        b2: β2 in [0, 1), how much of v a step keeps.
        eps: ε >= 0, added to the root of v, see `bias_correction`.
        eps_root: ε_root >= 0, added to v inside the root.
        mu_dtype: the dtype or codec that stores m, None: float32 or wider, see `scale_by_moments`.
        nesterov: Nesterov's momentum, see the stage `nesterov`.
        nu_dtype: the dtype or codec that stores v, None: float32 or wider, see `scale_by_moments`.
        precise: exact for β1 and β2 close to 1, not bitwise identical to optax, see `scale_by_moments`.

    Returns:
        A transformation from gradients to updates for `optax.apply_updates`, in the gradients' dtype; its state is
        `(MomentsState(count, mu, nu), state of scale_by_lr)`.

    Raises:
        ValueError, TypeError: as the stages do.

    Example:
        >>> import jax, jax.numpy as jnp, optax, adamx
        >>> loss = lambda x: jnp.sum(x**2)
        >>> tx, x = adamx.adam(0.1), jnp.array([1.0, 2.0])
        >>> state = tx.init(x)
        >>> for _ in range(100):
        ...     updates, state = tx.update(jax.grad(loss)(x), state)
        ...     x = optax.apply_updates(x, updates)
        >>> bool(loss(x) < 1e-2)
        True
    """
    direction = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, nu_dtype=nu_dtype, precise=precise)
    return chain(direction, scale_by_lr(learning_rate))
