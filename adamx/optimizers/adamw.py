"""AdamW, Loshchilov & Hutter (2019): weight decay that the quotient does not rescale."""

import optax
from jax.typing import DTypeLike

from adamx.core.chain import chain
from adamx.core.decay import Mask, add_decayed_weights
from adamx.core.rate import ScalarOrSchedule, scale_by_lr
from adamx.hyperparameters import names_hints
from adamx.numerics import Scalar
from adamx.optimizers.adam import scale_by_adam


@names_hints
def adamw(
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
) -> optax.GradientTransformationExtraArgs:
    """AdamW, a drop-in for `optax.adamw`: the same arguments, updates and layout of the state.

    `θ_t = θ_{t-1} - α (m̂_t / (√(v̂_t + ε_root) + ε) + λ θ_{t-1})`.

    Loshchilov & Hutter, "Decoupled Weight Decay Regularization" (2019), arXiv 1711.05101, Algorithm 2, with λ
    multiplied by the learning rate, as in optax and torch.

    Args:
        learning_rate: α, see `scale_by_lr`.
        b1: β1, see `scale_by_moments`.
        b2: β2, likewise.
        eps: ε, see `bias_correction`.
        eps_root: ε_root, likewise.
        mu_dtype: the dtype that stores m, see `scale_by_moments`.
        weight_decay: λ, see `add_decayed_weights`.
        mask: which leaves decay, likewise.
        nesterov: Nesterov's momentum, see the stage `nesterov`.
        nu_dtype: the dtype that stores v, see `scale_by_moments`.
        precise: exact for β close to 1 instead of optax's bits, see `scale_by_moments`.

    Returns:
        As `adam`, with the state of the weight decay between the other two; its update needs the parameters.

    Raises:
        ValueError, TypeError: as the stages do.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.adamw(0.1, weight_decay=0.5, mask={"kernel": True, "bias": False})
        >>> params = {"kernel": jnp.ones(1), "bias": jnp.ones(1)}
        >>> gradients = {"kernel": jnp.zeros(1), "bias": jnp.zeros(1)}
        >>> updates, _ = tx.update(gradients, tx.init(params), params)
        >>> float(updates["kernel"][0]), abs(float(updates["bias"][0]))
        (-0.05000000074505806, 0.0)
    """
    direction = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, nu_dtype=nu_dtype, precise=precise)
    return chain(direction, add_decayed_weights(weight_decay, mask), scale_by_lr(learning_rate))
