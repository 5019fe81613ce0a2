"""NAdam, Dozat (2016): Nesterov's momentum inside the first moment."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from adamx import numerics
from adamx.core.composition import chain, join, no_state
from adamx.core.correction import bias_correction, correct
from adamx.core.decay import Mask, add_decayed_weights
from adamx.core.message import Weight, check_is_moments
from adamx.core.moments import scale_by_moments
from adamx.core.rate import ScalarOrSchedule, scale_by_lr
from adamx.core.state import increment
from adamx.hyperparameters import names_hints
from adamx.numerics import Scalar
from adamx.trees import map_leaves


def nesterov() -> optax.GradientTransformationExtraArgs:
    """Looks one step ahead with m, between stage 1 and stage 2.

    `m̂_t = β1 m_t / (1-β1^{t+1}) + (1-β1) g_t / (1-β1^t)`, which replaces line 9.

    Dozat, "Incorporating Nesterov Momentum into Adam" (2016), Algorithm 2, without its factor β2 on v̂, as in optax.

    Returns:
        A stateless transformation from `Moments` to `Moments` whose m is corrected already.

    Raises:
        TypeError: its update does not get `Moments`.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> tx = optax.chain(adamx.scale_by_moments(), adamx.nesterov(), adamx.bias_correction())
        >>> direction, _ = tx.update(jnp.array([1.0]), tx.init(jnp.zeros(1)))
        >>> direction.round(4)
        Array([1.4736999], dtype=float32)
    """

    def update(
        updates: Any, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[Any, optax.OptState]:
        moments = check_is_moments("nesterov()", updates, any_p=True)
        weight = moments.mu_weight
        if not isinstance(weight, Weight):
            raise TypeError("nesterov() must come right behind scale_by_moments(): m is corrected already")

        def widen(g: jax.Array, m: jax.Array) -> tuple[jax.Array]:
            return (jnp.asarray(g, m.dtype),)

        def ahead(m_next: jax.Array, g_now: jax.Array) -> tuple[jax.Array]:
            b1 = numerics.as_scalar(weight.decay, m_next.dtype)
            return (numerics.clamp_look_ahead(b1 * m_next + (1 - b1) * g_now),)

        m_next = correct(moments.mu, weight._replace(count=increment(weight.count)))
        g_now = correct(map_leaves(widen, 1, moments.gradients, moments.mu)[0], weight)
        return moments.replace(mu=map_leaves(ahead, 1, m_next, g_now)[0], mu_weight=1.0), state

    return optax.GradientTransformationExtraArgs(no_state, update)


@names_hints
def nadam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nu_dtype: DTypeLike | None = None,
    precise: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """NAdam, a drop-in for `optax.nadam`: `adam` with the stage `nesterov`, and equal to it with `nesterov=True`.

    `θ_t = θ_{t-1} - α m̂_t / (√(v̂_t + ε_root) + ε)`, m̂ as in `nesterov`.

    Dozat, "Incorporating Nesterov Momentum into Adam" (2016), Algorithm 2. torch's NAdam lets β1 grow with the step, by
    `momentum_decay`; it equals this one only where that schedule has run out. Arguments, state and errors are those of
    `adam`.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.nadam(0.1)
        >>> tx.update(jnp.array([2.0]), tx.init(jnp.zeros(1)))[0].round(4)
        Array([-0.14739999], dtype=float32)
    """
    moments = scale_by_moments(b1, b2, mu_dtype=mu_dtype, nu_dtype=nu_dtype, precise=precise)
    return chain(join(moments, nesterov(), bias_correction(eps, eps_root)), scale_by_lr(learning_rate))


@names_hints
def nadamw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask | None = None,
    *,
    nu_dtype: DTypeLike | None = None,
    precise: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """NAdam with the weight decay of AdamW, a drop-in for `optax.nadamw`: `adamw` with the stage `nesterov`.

    Arguments, state and errors are those of `adamw`.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx, params = adamx.nadamw(0.1, weight_decay=0.5), jnp.ones(1)
        >>> tx.update(jnp.zeros(1), tx.init(params), params)[0]
        Array([-0.05], dtype=float32)
    """
    moments = scale_by_moments(b1, b2, mu_dtype=mu_dtype, nu_dtype=nu_dtype, precise=precise)
    direction = join(moments, nesterov(), bias_correction(eps, eps_root))
    return chain(direction, add_decayed_weights(weight_decay, mask), scale_by_lr(learning_rate))
