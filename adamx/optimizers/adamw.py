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
        learning_rate: α, a number or a schedule over the step count, see `scale_by_lr`.
        b1: β1 in [0, 1), how much of m a step keeps.
        b2: β2 in [0, 1), how much of v a step keeps.
        eps: ε >= 0, added to the root of v, see `bias_correction`.
        eps_root: ε_root >= 0, added to v inside the root.
        mu_dtype: the dtype or codec that stores m, None: float32 or wider, see `scale_by_moments`.
        weight_decay: λ, a number or a schedule, see `add_decayed_weights`.
        mask: which leaves decay: a tree of booleans, or a function that makes one, as `adamx.not_matching` does.
        nesterov: Nesterov's momentum, see the stage `nesterov`.
        nu_dtype: the dtype or codec that stores v, None: float32 or wider, see `scale_by_moments`.
        precise: exact for β1 and β2 close to 1, not bitwise identical to optax, see `scale_by_moments`.

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
