"""AdaMax, Kingma & Ba (2015), section 7.1: the largest gradient instead of the mean square."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from adamx import hyperparameters, numerics
from adamx.core.averages import Mean, averages_of
from adamx.core.chain import chain, join
from adamx.core.decay import Mask, add_decayed_weights
from adamx.core.message import InfinityMoments
from adamx.core.moments import moments_of
from adamx.core.rate import ScalarOrSchedule, scale_by_lr
from adamx.core.stages import quotient
from adamx.hyperparameters import names_hints
from adamx.numerics import Scalar


@names_hints
def scale_by_infinity_moments(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    *,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    precise: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Averages the gradients and keeps a decaying maximum of their magnitudes, in place of stage 1.

    `m_t = β1 m_{t-1} + (1-β1) g_t`, `u_t = max(β2 u_{t-1}, |g_t| + ε)`, from `m_0 = u_0 = 0`.

    Kingma & Ba (2015), section 7.1, Algorithm 2: the limit p → ∞ of an L^p norm whose square is Adam's v for p = 2. The
    paper has no ε; it stands where optax and torch have it. u is `nu` in the message and the state. Nothing is squared,
    so gradients up to the largest float keep their size.

    Args:
        b1: β1 in [0, 1), how much of m a step keeps.
        b2: β2 in [0, 1), how much of u a step keeps.
        eps: ε >= 0, in units of the gradient.
        mu_dtype: the dtype or codec that stores m, None: float32 or wider, see `scale_by_moments`.
        nu_dtype: the dtype or codec that stores u, None: float32 or wider, see `scale_by_moments`.
        precise: as in `scale_by_moments`.

    Returns:
        A transformation whose update gives `InfinityMoments`, to be taken by `divide_by_infinity_norm`; its
        state is that of `scale_by_moments`.

    Raises:
        ValueError, TypeError: as `scale_by_moments` does, and for a wrong eps as `bias_correction` does.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> stage = adamx.optimizers.scale_by_infinity_moments(b2=0.5, eps=0.0)
        >>> state = stage.init(jnp.zeros(1))
        >>> for g in (4.0, -3.0, 0.0):
        ...     moments, state = stage.update(jnp.array([g]), state)
        >>> state.nu
        Array([1.5], dtype=float32)
    """
    eps = hyperparameters.nonnegative("eps", eps)

    def decayed_maximum(mean: Mean, largest: float, u: jax.Array, g: jax.Array, m: jax.Array) -> jax.Array:
        u = jnp.maximum(jnp.abs(g) + numerics.as_scalar(eps, u.dtype), mean(u, jnp.zeros_like(u)))
        return numerics.saturate_second_moment(u, largest)

    return moments_of(averages_of(decayed_maximum, b1, b2, mu_dtype, nu_dtype, precise, InfinityMoments))


def divide_by_infinity_norm() -> optax.GradientTransformationExtraArgs:
    """Divides the corrected m by u, in place of stage 2.

    `m_t / (1-β1^t) / u_t`; u starts from its first gradient and needs no correction. 0 where m and u are both 0.

    Kingma & Ba (2015), section 7.1, Algorithm 2.

    Returns:
        A stateless transformation from the `InfinityMoments` of `scale_by_infinity_moments` to the direction, as
        `bias_correction`.

    Raises:
        TypeError: its update does not get `InfinityMoments`.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> moments, quotient = adamx.optimizers.scale_by_infinity_moments, adamx.optimizers.divide_by_infinity_norm
        >>> tx = optax.chain(moments(eps=0.0), quotient())
        >>> direction, _ = tx.update(jnp.array([-3.0, 0.0]), tx.init(jnp.zeros(2)))
        >>> direction.round(3)
        Array([-1.,  0.], dtype=float32)
    """

    def formula(m_hat: jax.Array, u: jax.Array) -> jax.Array:
        return numerics.divide(m_hat, jnp.where(u == 0, jnp.ones_like(u), u))

    return quotient("divide_by_infinity_norm()", formula, InfinityMoments)


@names_hints
def scale_by_adamax(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    *,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    precise: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Both stages of AdaMax joined: gradients in, direction out, one `MomentsState` kept.

    The arguments come in the order of `optax.scale_by_adamax`.

    Args:
        b1: β1 in [0, 1), how much of m a step keeps.
        b2: β2 in [0, 1), how much of u a step keeps.
        eps: ε >= 0, added to |g|, see `scale_by_infinity_moments`.
        mu_dtype: the dtype or codec that stores m, None: float32 or wider, see `scale_by_moments`.
        nu_dtype: the dtype or codec that stores u, None: float32 or wider, see `scale_by_moments`.
        precise: exact for β1 and β2 close to 1, not bitwise identical to optax, see `scale_by_moments`.

    Returns:
        A transformation from gradients to the direction in their dtype; its state is `MomentsState`.

    Raises:
        ValueError, TypeError: as `scale_by_infinity_moments` does.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.optimizers.scale_by_adamax()
        >>> tx.update(jnp.array([-3.0]), tx.init(jnp.zeros(1)))[0].round(4)
        Array([-1.], dtype=float32)
    """
    moments = scale_by_infinity_moments(b1, b2, eps, mu_dtype=mu_dtype, nu_dtype=nu_dtype, precise=precise)
    return join(moments, divide_by_infinity_norm())


@names_hints
def adamax(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    *,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    precise: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """AdaMax, a drop-in for `optax.adamax`: the same arguments, updates and layout of the state.

    `θ_t = θ_{t-1} - α / (1-β1^t) · m_t / u_t`, `u_t = max(β2 u_{t-1}, |g_t| + ε)`.

    Kingma & Ba, "Adam: A Method for Stochastic Optimization" (2015), arXiv 1412.6980, section 7.1, Algorithm 2. There
    is no ε_root: nothing is rooted.

    Args:
        learning_rate: α, see `scale_by_lr`; the paper's default is 0.002.
        b1: β1 in [0, 1), how much of m a step keeps.
        b2: β2 in [0, 1), how much of u a step keeps.
        eps: ε >= 0, added to |g|, see `scale_by_infinity_moments`.
        mu_dtype: the dtype or codec that stores m, None: float32 or wider, see `scale_by_moments`.
        nu_dtype: the dtype or codec that stores u, None: float32 or wider, see `scale_by_moments`.
        precise: exact for β1 and β2 close to 1, not bitwise identical to optax, see `scale_by_moments`.

    Returns:
        A transformation from gradients to updates; its state is `(MomentsState, state of scale_by_lr)`.

    Raises:
        ValueError, TypeError: as the stages do.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.adamax(0.1)
        >>> updates, _ = tx.update(jnp.array([2.0, 0.0]), tx.init(jnp.zeros(2)))
        >>> updates.round(3)
        Array([-0.1, -0. ], dtype=float32)
    """
    direction = scale_by_adamax(b1, b2, eps, mu_dtype=mu_dtype, nu_dtype=nu_dtype, precise=precise)
    return chain(direction, scale_by_lr(learning_rate))


@names_hints
def adamaxw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask | None = None,
    *,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    precise: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """AdaMax with the weight decay of AdamW, a drop-in for `optax.adamaxw`.

    `θ_t = θ_{t-1} - α (m_t / ((1-β1^t) u_t) + λ θ_{t-1})`: `adamax` with `add_decayed_weights(weight_decay, mask)`
    before the learning rate.

    Args:
        learning_rate: α, a number or a schedule over the step count, see `scale_by_lr`.
        b1: β1 in [0, 1), how much of m a step keeps.
        b2: β2 in [0, 1), how much of u a step keeps.
        eps: ε >= 0, added to |g|, see `scale_by_infinity_moments`.
        weight_decay: λ, a number or a schedule, see `add_decayed_weights`.
        mask: which leaves decay: a tree of booleans, or a function that makes one, as `adamx.not_matching` does.
        mu_dtype: the dtype or codec that stores m, None: float32 or wider, see `scale_by_moments`.
        nu_dtype: the dtype or codec that stores u, None: float32 or wider, see `scale_by_moments`.
        precise: exact for β1 and β2 close to 1, not bitwise identical to optax, see `scale_by_moments`.

    Returns:
        A transformation from gradients to updates that needs the parameters; its state is that of `adamw`.

    Raises:
        ValueError, TypeError: as the stages do.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx, params = adamx.adamaxw(0.1, weight_decay=0.5), jnp.ones(1)
        >>> tx.update(jnp.zeros(1), tx.init(params), params)[0]
        Array([-0.05], dtype=float32)
    """
    direction = scale_by_adamax(b1, b2, eps, mu_dtype=mu_dtype, nu_dtype=nu_dtype, precise=precise)
    return chain(direction, add_decayed_weights(weight_decay, mask), scale_by_lr(learning_rate))
