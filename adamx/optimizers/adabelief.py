"""AdaBelief, Zhuang et al. (2020): how far the gradient is from what m predicts, instead of how large it is."""

import jax
import optax
from jax.typing import DTypeLike

from adamx import hyperparameters, numerics
from adamx.core.averages import Mean, averages_of
from adamx.core.chain import chain, join
from adamx.core.moments import moments_of
from adamx.core.rate import ScalarOrSchedule, scale_by_lr
from adamx.core.stages import bias_correction
from adamx.hyperparameters import flag, names_hints
from adamx.numerics import Scalar
from adamx.optimizers.nesterov import nesterov as look_ahead
from adamx.storage.pairs import check_belief


@names_hints
def scale_by_belief_moments(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps_root: Scalar = 1e-16,
    *,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    precise: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Averages the gradients and the squares of their differences from that average, in place of stage 1.

    `m_t = β1 m_{t-1} + (1-β1) g_t`, `s_t = β2 s_{t-1} + (1-β2) (g_t - m_t)² + ε_root`, from `m_0 = s_0 = 0`.

    Zhuang et al., "AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients" (2020), arXiv
    2010.07468, Algorithm 2. s is `nu` in the message and the state. ε_root is added to s in every step and stays in it,
    as in the paper and optax, so that s tends to at least ε_root / (1-β2).

    Args:
        b1: β1 in [0, 1), how much of m a step keeps.
        b2: β2 in [0, 1), how much of s a step keeps.
        eps_root: ε_root >= 0, in units of the squared gradient.
        mu_dtype: the dtype or codec that stores m, None: float32 or wider, see `scale_by_moments`.
        nu_dtype: the dtype or codec that stores s, None: float32 or wider, see `scale_by_moments`.
        precise: as in `scale_by_moments`.

    Returns:
        A transformation to `Moments` for `bias_correction`; its state is that of `scale_by_moments`.

    Raises:
        ValueError, TypeError: as `scale_by_moments` does, for a wrong eps_root as `bias_correction` does, and a
            ValueError where both moments are `Int4`.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> stage = adamx.optimizers.scale_by_belief_moments(b1=0.5, b2=0.5)
        >>> stage.update(jnp.array([4.0]), stage.init(jnp.zeros(1)))[1].nu
        Array([2.], dtype=float32)
    """
    eps_root = hyperparameters.nonnegative("eps_root", eps_root)

    def of_deviations(mean: Mean, largest: float, s: jax.Array, g: jax.Array, m: jax.Array) -> jax.Array:
        held = numerics.saturate_second_moment(mean(s, numerics.square(g - m)), largest)
        return held + numerics.as_scalar(eps_root, s.dtype)  # after the select, where alone bits are optax's

    averages = averages_of(of_deviations, b1, b2, mu_dtype, nu_dtype, precise)
    check_belief(averages.mu_codec, averages.nu_codec)
    return moments_of(averages)


@names_hints
def scale_by_belief(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-16,
    eps_root: Scalar = 1e-16,
    *,
    nesterov: bool = False,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    precise: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """`scale_by_belief_moments` and `bias_correction` joined: gradients in, direction out, one `MomentsState` kept.

    The arguments come in the order of `optax.scale_by_belief`.

    Args:
        b1: β1 in [0, 1), how much of m a step keeps.
        b2: β2 in [0, 1), how much of s a step keeps.
        eps: ε >= 0, added to the root of s, see `bias_correction`.
        eps_root: ε_root >= 0, added to s in every step, see `scale_by_belief_moments`.
        nesterov: Nesterov's momentum, see the stage `nesterov`.
        mu_dtype: the dtype or codec that stores m, None: float32 or wider, see `scale_by_moments`.
        nu_dtype: the dtype or codec that stores s, None: float32 or wider, see `scale_by_moments`.
        precise: exact for β1 and β2 close to 1, not bitwise identical to optax, see `scale_by_moments`.

    Returns:
        A transformation from gradients to the direction in their dtype; its state is `MomentsState`.

    Raises:
        ValueError, TypeError: as the stages do.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.optimizers.scale_by_belief(b1=0.0, b2=0.5)
        >>> tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0].shape
        (1,)
    """
    moments = scale_by_belief_moments(b1, b2, eps_root, mu_dtype=mu_dtype, nu_dtype=nu_dtype, precise=precise)
    between = [look_ahead()] if flag("nesterov", nesterov) else []
    return join(moments, *between, bias_correction(eps))


@names_hints
def adabelief(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-16,
    eps_root: Scalar = 1e-16,
    *,
    nesterov: bool = False,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    precise: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """AdaBelief, a drop-in for `optax.adabelief`: the same arguments, updates and layout of the state.

    `θ_t = θ_{t-1} - α m̂_t / (√ŝ_t + ε)`, s as in `scale_by_belief_moments`.

    Zhuang et al., "AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients" (2020), arXiv
    2010.07468, Algorithm 2.

    Args:
        learning_rate: α, a number or a schedule over the step count, see `scale_by_lr`.
        b1: β1 in [0, 1), how much of m a step keeps.
        b2: β2 in [0, 1), how much of s a step keeps.
        eps: ε >= 0, added to the root of s, see `bias_correction`.
        eps_root: ε_root, see `scale_by_belief_moments`.
        nesterov: Nesterov's momentum, see the stage `nesterov`.
        mu_dtype: the dtype or codec that stores m, None: float32 or wider, see `scale_by_moments`.
        nu_dtype: the dtype or codec that stores s, None: float32 or wider, see `scale_by_moments`.
        precise: exact for β1 and β2 close to 1, not bitwise identical to optax, see `scale_by_moments`.

    Returns:
        A transformation from gradients to updates; its state is `(MomentsState, state of scale_by_lr)`.

    Raises:
        ValueError, TypeError: as the stages do.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.adabelief(0.1)
        >>> updates, _ = tx.update(jnp.array([2.0]), tx.init(jnp.zeros(1)))
        >>> updates.round(4)  # m predicts 0.1 g at first: α / 0.9
        Array([-0.1111], dtype=float32)
    """
    direction = scale_by_belief(
        b1, b2, eps, eps_root, nesterov=nesterov, mu_dtype=mu_dtype, nu_dtype=nu_dtype, precise=precise
    )
    return chain(direction, scale_by_lr(learning_rate))
