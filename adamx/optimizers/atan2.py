"""Adam-atan2, Everett et al. (2024): an angle in place of the quotient, and no ε."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from adamx import hyperparameters, numerics
from adamx.core.chain import chain, join
from adamx.core.decay import Mask, add_decayed_weights
from adamx.core.moments import scale_by_moments
from adamx.core.rate import ScalarOrSchedule, scale_by_lr
from adamx.core.stages import quotient
from adamx.hyperparameters import names_hints
from adamx.numerics import Scalar


@jax.custom_jvp
def angle(y: jax.Array, x: jax.Array) -> jax.Array:
    """`atan2(y, x)`, its derivative taken at x = 1 where both are 0, without squares that vanish or overflow."""
    return jnp.arctan2(y, x)


@angle.defjvp
def _angle_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (y, x), (dy, dx) = primals, tangents
    away = jnp.where((y == 0) & (x == 0), jnp.ones_like(x), x)
    scale = jnp.maximum(jnp.abs(y), away)
    y_unit, x_unit = y / scale, away / scale
    return angle(y, x), (x_unit * dy - y_unit * dx) / (y_unit * y_unit + x_unit * x_unit) / scale


@names_hints
def atan2_correction(a: Scalar = 1.27, b: Scalar = 1.0) -> optax.GradientTransformationExtraArgs:
    """Corrects both moments and takes the arctangent of their quotient, in place of stage 2.

    `u_t = a atan2(m̂_t, b √v̂_t)`, with m̂ and v̂ of `bias_correction`.

    Everett et al., "Scaling Exponents Across Parameterizations and Optimizers" (2024), arXiv 2407.05872: close to
    `a m̂ / (b √v̂)` where that is small, and never more than `a π/2`. There is no ε to compare gradients with, so u does
    not depend on their scale: a power of two changes no bit, as long as g² neither vanishes nor overflows. Where it
    vanishes, from |g| = 1e-18 on in float32, v is 0 and every step has the length a π/2. Evidence: the authors'
    experiments with language models, where wide ones have gradients below the usual ε.

    Args:
        a: the factor of the angle, at least 0. 1.27 is 4/π, which makes u = 1 where m̂ = √v̂, as in Adam; it is the
            default of the common implementations, as is b.
        b: the factor of √v̂, at least 0.

    Returns:
        A stateless transformation from `Moments` to the direction, as `bias_correction`.

    Raises:
        ValueError: a or b negative, infinite, NaN or not a scalar.
        TypeError: a or b not a number; at update, anything but `Moments`, or complex ones.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> tx = optax.chain(adamx.scale_by_moments(), adamx.optimizers.atan2_correction())
        >>> direction, _ = tx.update(jnp.array([1e-15, -3.0, 0.0]), tx.init(jnp.zeros(3)))
        >>> direction.round(2)
        Array([ 1.,  -1.,  0.], dtype=float32)
    """
    a, b = hyperparameters.nonnegative("a", a), hyperparameters.nonnegative("b", b)

    def formula(m_hat: jax.Array, v_hat: jax.Array) -> jax.Array:
        if jnp.iscomplexobj(m_hat):
            raise TypeError(
                "atan2_correction() is for real parameters: an angle between a complex m and √v is not defined. "
                "Wrap the optimizer in optax.contrib.split_real_and_imaginary"
            )
        a_, b_ = (numerics.as_scalar(x, m_hat.dtype) for x in (a, b))
        return a_ * angle(m_hat, b_ * numerics.root(v_hat))

    return quotient("atan2_correction()", formula)


@names_hints
def adam_atan2(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    a: Scalar = 1.27,
    b: Scalar = 1.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nu_dtype: DTypeLike | None = None,
    precise: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Adam-atan2: `adam` with the stage `atan2_correction`, and therefore without `eps` and `eps_root`.

    `θ_t = θ_{t-1} - α a atan2(m̂_t, b √v̂_t)`.

    Everett et al. (2024), arXiv 2407.05872.

    Args:
        learning_rate: α, a number or a schedule over the step count, see `scale_by_lr`.
        b1: β1 in [0, 1), how much of m a step keeps.
        b2: β2 in [0, 1), how much of v a step keeps.
        a: the factor of the angle, at least 0, see `atan2_correction`.
        b: the factor of √v̂, at least 0.
        mu_dtype: the dtype or codec that stores m, None: float32 or wider, see `scale_by_moments`.
        nu_dtype: the dtype or codec that stores v, None: float32 or wider, see `scale_by_moments`.
        precise: exact for β1 and β2 close to 1, see `scale_by_moments`.

    Returns:
        A transformation from gradients to updates; its state is `(MomentsState, state of scale_by_lr)`.

    Raises:
        ValueError, TypeError: as the stages do; complex parameters are a TypeError.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.adam_atan2(0.1)
        >>> tx.update(jnp.array([2.0]), tx.init(jnp.zeros(1)))[0].round(4)
        Array([-0.0997], dtype=float32)
    """
    moments = scale_by_moments(b1, b2, mu_dtype=mu_dtype, nu_dtype=nu_dtype, precise=precise)
    return chain(join(moments, atan2_correction(a, b)), scale_by_lr(learning_rate))


@names_hints
def adamw_atan2(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    a: Scalar = 1.27,
    b: Scalar = 1.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask | None = None,
    *,
    nu_dtype: DTypeLike | None = None,
    precise: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Adam-atan2 with the weight decay of AdamW: `adamw` with the stage `atan2_correction`.

    `θ_t = θ_{t-1} - α (a atan2(m̂_t, b √v̂_t) + λ θ_{t-1})`.

    Everett et al. (2024), arXiv 2407.05872.

    Args:
        learning_rate: α, a number or a schedule over the step count, see `scale_by_lr`.
        b1: β1 in [0, 1), how much of m a step keeps.
        b2: β2 in [0, 1), how much of v a step keeps.
        a: the factor of the angle, at least 0, see `atan2_correction`.
        b: the factor of √v̂, at least 0.
        mu_dtype: the dtype or codec that stores m, None: float32 or wider, see `scale_by_moments`.
        weight_decay: λ, a number or a schedule, see `add_decayed_weights`.
        mask: which leaves decay: a tree of booleans, or a function that makes one, as `adamx.not_matching` does.
        nu_dtype: the dtype or codec that stores v, None: float32 or wider, see `scale_by_moments`.
        precise: exact for β1 and β2 close to 1, see `scale_by_moments`.

    Returns:
        A transformation from gradients to updates that needs the parameters; its state is that of `adamw`.

    Raises:
        ValueError, TypeError: as the stages do; complex parameters are a TypeError.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx, params = adamx.adamw_atan2(0.1, weight_decay=0.5), jnp.ones(1)
        >>> tx.update(jnp.zeros(1), tx.init(params), params)[0]
        Array([-0.05], dtype=float32)
    """
    moments = scale_by_moments(b1, b2, mu_dtype=mu_dtype, nu_dtype=nu_dtype, precise=precise)
    decay = add_decayed_weights(weight_decay, mask)
    return chain(join(moments, atan2_correction(a, b)), decay, scale_by_lr(learning_rate))
