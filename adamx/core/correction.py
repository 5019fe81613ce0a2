"""Stage 2, lines 9 to 11 of Algorithm 1 without its α: the bias correction and the quotient."""

from typing import Any

import jax
import optax

from adamx import hyperparameters, numerics
from adamx.core.composition import no_state
from adamx.core.message import check_message
from adamx.core.stages import quotient
from adamx.hyperparameters import names_hints
from adamx.numerics import Scalar


@names_hints
def bias_correction(eps: Scalar = 1e-8, eps_root: Scalar = 0.0) -> optax.GradientTransformationExtraArgs:
    """Divides both moments by the weight they have seen, and the first by the root of the second.

    `m̂_t = m_t / (1-β1^t)`, `v̂_t = v_t / (1-β2^t)`, `u_t = m̂_t / (√(v̂_t + ε_root) + ε)`.

    Kingma & Ba (2015), Algorithm 1, lines 9 to 11. The weights come with the `Moments`.

    Args:
        eps: ε >= 0, in units of the gradient. With ε = 0 a gradient that was always 0 gives 0.
        eps_root: ε_root >= 0, in units of the squared gradient.

    Returns:
        A stateless transformation from `Moments` to the direction u, a tree of the parameters' shapes in the dtype of
        the gradients (float32 for float8 gradients).

    Raises:
        ValueError: eps or eps_root negative, infinite, NaN or not a scalar.
        TypeError: eps or eps_root not a number; at update, anything but `Moments`.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> tx = optax.chain(adamx.scale_by_moments(b1=0.2), adamx.bias_correction(eps=0.0))
        >>> direction, _ = tx.update(jnp.array([10.0, 0.0]), tx.init(jnp.zeros(2)))
        >>> direction.round(2)
        Array([1., 0.], dtype=float32)
    """
    eps = hyperparameters.nonnegative("eps", eps)
    eps_root = hyperparameters.nonnegative("eps_root", eps_root)

    def formula(m_hat: jax.Array, v_hat: jax.Array) -> jax.Array:
        return numerics.direction(m_hat, v_hat, *(numerics.as_scalar(e, v_hat.dtype) for e in (eps, eps_root)))

    return quotient("bias_correction()", formula)


@names_hints
def uncorrected(eps: Scalar = 1e-8, eps_root: Scalar = 0.0) -> optax.GradientTransformationExtraArgs:
    """The quotient without the correction, `u_t = m_t / (√(v_t + ε_root) + ε)`: for ablations.

    Its first steps are wrong by `(1-β1)/√(1-β2)`, 3.2 at the defaults and 100 at β2 = 0.999999 (Kingma & Ba, section
    6.4). Arguments, state and errors are those of `bias_correction`.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> tx = optax.chain(adamx.scale_by_moments(), adamx.uncorrected())
        >>> direction, _ = tx.update(jnp.array([10.0]), tx.init(jnp.zeros(1)))
        >>> direction.round(2)
        Array([3.1599998], dtype=float32)
    """
    corrected = bias_correction(eps, eps_root)

    def update(
        updates: Any, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        moments = check_message("uncorrected()", updates)
        return corrected.update(moments.replace(m_hat=moments.mu, v_hat=moments.nu), state, params)

    return optax.GradientTransformationExtraArgs(no_state, update)
