"""RAdam, Liu et al. (2020): plain momentum until the variance of v̂ is known, then a step rectified by it."""

import math

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from adamx import hyperparameters, numerics
from adamx.core.chain import chain, join
from adamx.core.message import Moments, Weight
from adamx.core.moments import scale_by_moments
from adamx.core.rate import ScalarOrSchedule, scale_by_lr
from adamx.core.stages import quotient
from adamx.hyperparameters import flag, names_hints
from adamx.numerics import Scalar
from adamx.optimizers.nesterov import nesterov as look_ahead

SERIES = (1 / 2, -1 / 12, 1 / 720, -1 / 30240, 1 / 1209600, -1 / 47900160, 691 / 1307674368000)
"""Coefficients of x^0, x^1, x^3, x^5, ... in `1/x - 1/(e^x - 1)`: its next term is below 2e-15 for x < 1/2."""


def _averaged_steps(weight: Weight) -> jax.Array:
    """ρ_t, the length of the simple average that has the variance of v̂_t: `ρ_∞ - 2 t β2^t / (1-β2^t)`.

    The difference of two numbers near 2/(1-β2). The precise form is `c + 2 t (1/x - 1/(e^x - 1))` with x = -t log β2
    and a constant c of about (1-β2)/6 that the host takes in float64.
    """
    b2, count = weight.decay, weight.count
    if not weight.precise:
        with jax.numpy_dtype_promotion("standard"):  # an integer power of a float: op by op the bits of optax's
            power = jnp.asarray(b2**count)
        return 2.0 / (1.0 - b2) - 1.0 - 2 * count.astype(power.dtype) * power / (1 - power)
    assert isinstance(b2, float)
    rate = -math.log(b2) if b2 > 0 else math.inf
    t = count.astype(jnp.result_type(float))
    x = t * rate
    short = jnp.minimum(x, 0.5)
    powers = sum(c * short ** (2 * k + 1) for k, c in enumerate(SERIES[1:]))
    gap = jnp.where(x < 0.5, SERIES[0] + powers, 1 / x - 1 / jnp.expm1(jnp.maximum(x, 0.5)))
    return (2 / (1 - b2) - 1 - 2 / rate) + 2 * t * gap


def rectification(weight: Weight, threshold: Scalar) -> tuple[jax.Array, jax.Array]:
    """Whether ρ_t has reached the threshold, and `r_t = √((ρ_t-4)(ρ_t-2)ρ_∞ / ((ρ_∞-4)(ρ_∞-2)ρ_t))`, 1 before."""
    rho, rho_inf = _averaged_steps(weight), 2.0 / (1.0 - weight.decay) - 1.0
    tractable = rho >= threshold
    ratio = (rho - 4.0) * (rho - 2.0) * rho_inf / ((rho_inf - 4.0) * (rho_inf - 2.0) * rho)
    return tractable, jnp.sqrt(jnp.where(tractable, ratio, jnp.ones_like(ratio)))


@names_hints
def rectified_bias_correction(
    eps: Scalar = 1e-8, eps_root: Scalar = 0.0, threshold: Scalar = 5.0
) -> optax.GradientTransformationExtraArgs:
    """Stage 2 with rectification: shorter steps while v̂ averages few squares, and no v̂ in the first steps.

    `u_t = r_t m̂_t / (√(v̂_t + ε_root) + ε)` where ρ_t has reached the threshold, `u_t = m̂_t` before, with
    `ρ_t = ρ_∞ - 2 t β2^t / (1-β2^t)`, `ρ_∞ = 2/(1-β2) - 1`, `r_t² = (ρ_t-4)(ρ_t-2)ρ_∞ / ((ρ_∞-4)(ρ_∞-2)ρ_t)`.

    Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond" (2020), arXiv 1908.03265, Algorithm 2. At
    β2 = 0.999 the first five steps are plain momentum, in units of the gradient; for β2 <= 0.6 all are. With the
    `precise=True` of stage 1, ρ_t is exact to a few units in the last place: in float32 the plain form cancels.

    Args:
        eps: ε >= 0, in units of the gradient.
        eps_root: ε_root >= 0, in units of the squared gradient.
        threshold: the ρ from which on the variance counts as known, at least 4, where r is 0. The paper has ρ > 4,
            optax and torch 5.

    Returns:
        A stateless transformation from `Moments` to the direction, as `bias_correction`.

    Raises:
        ValueError: an argument out of range.
        TypeError: an argument that is no number; at update, anything but `Moments`, or another v than that of
            `scale_by_moments`.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> tx = optax.chain(adamx.scale_by_moments(), adamx.optimizers.rectified_bias_correction())
        >>> state = tx.init(jnp.zeros(1))
        >>> for _ in range(6):
        ...     direction, state = tx.update(jnp.array([20.0]), state)
        ...     print(round(float(direction[0]), 2), end=" ")
        20.0 20.0 20.0 20.0 20.0 0.03
    """
    eps = hyperparameters.nonnegative("eps", eps)
    eps_root = hyperparameters.nonnegative("eps_root", eps_root)
    threshold = hyperparameters.at_least("threshold", threshold, 4)

    def given(moments: Moments) -> tuple[jax.Array, jax.Array]:
        if not isinstance(moments.nu_weight, Weight):
            raise TypeError("rectified_bias_correction() needs the v of scale_by_moments as it is, with its weight")
        return rectification(moments.nu_weight, threshold)

    def formula(m_hat: jax.Array, v_hat: jax.Array, tractable: jax.Array, r: jax.Array) -> jax.Array:
        epsilons = (numerics.as_scalar(e, v_hat.dtype) for e in (eps, eps_root))
        return jnp.where(tractable, numerics.direction(r.astype(v_hat.dtype) * m_hat, v_hat, *epsilons), m_hat)

    return quotient("rectified_bias_correction()", formula, given=given)


@names_hints
def scale_by_radam(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    threshold: Scalar = 5.0,
    *,
    nesterov: bool = False,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    precise: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """`scale_by_moments` and `rectified_bias_correction` joined: gradients in, direction out, one `MomentsState` kept.

    The arguments come in the order of `optax.scale_by_radam`.

    Args:
        b1: β1 in [0, 1), how much of m a step keeps.
        b2: β2 in [0, 1), how much of v a step keeps.
        eps: ε >= 0, added to the root of v, see `bias_correction`.
        eps_root: ε_root >= 0, added to v inside the root.
        threshold: the ρ_t from which v is used, see `rectified_bias_correction`.
        nesterov: Nesterov's momentum, see the stage `nesterov`.
        mu_dtype: the dtype or codec that stores m, None: float32 or wider, see `scale_by_moments`.
        nu_dtype: the dtype or codec that stores v, None: float32 or wider, see `scale_by_moments`.
        precise: exact for β1 and β2 close to 1, not bitwise identical to optax, see `scale_by_moments`.

    Returns:
        A transformation from gradients to the direction in their dtype; its state is `MomentsState`.

    Raises:
        ValueError, TypeError: as the stages do.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.optimizers.scale_by_radam()
        >>> tx.update(jnp.array([-3.0]), tx.init(jnp.zeros(1)))[0].round(4)
        Array([-3.], dtype=float32)
    """
    moments = scale_by_moments(b1, b2, mu_dtype=mu_dtype, nu_dtype=nu_dtype, precise=precise)
    between = [look_ahead()] if flag("nesterov", nesterov) else []
    return join(moments, *between, rectified_bias_correction(eps, eps_root, threshold))


@names_hints
def radam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    threshold: Scalar = 5.0,
    *,
    nesterov: bool = False,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    precise: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """RAdam, a drop-in for `optax.radam`: the same arguments, updates and layout of the state.

    `θ_t = θ_{t-1} - α u_t`, u as in `rectified_bias_correction`.

    Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond" (2020), arXiv 1908.03265, Algorithm 2. torch
    adds ε to √v before it corrects it, so that its ε is this one divided by √(1-β2^t); otherwise the two agree.

    Args:
        learning_rate: α, a number or a schedule over the step count, see `scale_by_lr`.
        b1: β1 in [0, 1), how much of m a step keeps.
        b2: β2 in [0, 1), how much of v a step keeps.
        eps: ε >= 0, added to the root of v, see `rectified_bias_correction`.
        eps_root: ε_root >= 0, added to v inside the root.
        threshold: the ρ_t from which on the variance counts as known, see `rectified_bias_correction`.
        nesterov: Nesterov's momentum, see the stage `nesterov`.
        mu_dtype: the dtype or codec that stores m, None: float32 or wider, see `scale_by_moments`.
        nu_dtype: the dtype or codec that stores v, None: float32 or wider, see `scale_by_moments`.
        precise: exact for β1 and β2 close to 1, in the rectification too, and not bitwise identical to optax.

    Returns:
        A transformation from gradients to updates; its state is `(MomentsState, state of scale_by_lr)`.

    Raises:
        ValueError, TypeError: as the stages do.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.radam(0.1)
        >>> tx.update(jnp.array([2.0]), tx.init(jnp.zeros(1)))[0].round(3)
        Array([-0.2], dtype=float32)
    """
    direction = scale_by_radam(
        b1, b2, eps, eps_root, threshold, nesterov=nesterov, mu_dtype=mu_dtype, nu_dtype=nu_dtype, precise=precise
    )
    return chain(direction, scale_by_lr(learning_rate))
