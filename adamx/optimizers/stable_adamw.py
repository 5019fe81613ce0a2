"""StableAdamW, Wortsman et al. (2023): shorter steps while v is smaller than the gradients are."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from adamx import hyperparameters, numerics, shards
from adamx.core.chain import chain
from adamx.core.decay import Mask, add_decayed_weights
from adamx.core.message import check_message
from adamx.core.moments import scale_by_moments
from adamx.core.rate import ScalarOrSchedule, scale_by_lr
from adamx.core.stages import bias_correction, update_dtype
from adamx.hyperparameters import names_hints
from adamx.numerics import Scalar
from adamx.trees import map_leaves


def root_mean_square(g: jax.Array, v_hat: jax.Array, eps: Scalar, axes: shards.Axes = ()) -> jax.Array:
    """`RMS_t = √mean(g² / max(v̂, ε²))` over a leaf, 1 where v̂ knows how large g is.

    As the mean of squared quotients, `g / max(√v̂, ε)`: g² overflows where they do not. g is held within twice the root
    of the largest v, as m is.
    """
    largest = float(jnp.finfo(v_hat.dtype).max)
    scale = jnp.maximum(numerics.root(v_hat), eps)
    quotients = numerics.divide(
        numerics.bound_first_moment(g, largest), jnp.where(scale == 0, jnp.ones_like(scale), scale)
    )
    squares = shards.total(jnp.sum(numerics.square(quotients)), axes)
    return numerics.root(squares / float(max(shards.size(g, axes), 1)))


@names_hints
def clip_by_second_moment(
    tx: optax.GradientTransformation | None = None, eps: Scalar = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """Divides the direction of a leaf by the RMS of g/√v̂ if that is above 1, around stage 2.

    `u_t / max(1, RMS_t)`, `RMS_t = √mean(g_t² / max(v̂_t, ε²))`, the mean over a leaf.

    Wortsman et al., "Stable and low-precision training for large-scale vision-language models" (2023), arXiv
    2304.13013, Algorithm 2. There it is α that is divided, and with it the weight decay; that is why this stage goes
    around stage 2 and what belongs to it, instead of behind it, where v̂ and g are not at hand any more. Evidence: the
    authors report no loss spikes in training a CLIP ViT-Huge model, and better results than with gradient clipping.

    Args:
        tx: from `Moments` to the direction; `optax.chain(bias_correction(), add_decayed_weights(λ))` to have the decay
            divided as well, as in the paper. None: `bias_correction(eps)`.
        eps: ε >= 0, in units of the gradient.

    Returns:
        A transformation from `Moments` to the direction that keeps the state of `tx`.

    Raises:
        ValueError: eps negative, infinite, NaN or not a scalar.
        TypeError: eps not a number; tx no transformation; at update, anything but `Moments`.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> tx = optax.chain(adamx.scale_by_moments(b2=0.75), adamx.optimizers.clip_by_second_moment())
        >>> state = tx.init(jnp.zeros(1))
        >>> for g in (1e-6, 1.0):
        ...     direction, state = tx.update(jnp.array([g]), state)
        >>> direction.round(4)  # Adam's 0.6964 divided by 1.3229
        Array([0.5263], dtype=float32)
    """
    if tx is not None and not isinstance(tx, optax.GradientTransformation):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(
            f"clip_by_second_moment takes the stages behind scale_by_moments, got {tx!r}: "
            "clip_by_second_moment(adamx.bias_correction())"
        )
    eps = hyperparameters.nonnegative("eps", eps)
    inner = optax.with_extra_args_support(bias_correction(eps) if tx is None else tx)

    def widened(g: jax.Array, v: jax.Array) -> tuple[jax.Array]:
        return (jnp.asarray(g, numerics.compute_dtype(jnp.result_type(g), v.dtype)),)

    def shortened(
        own: frozenset[str], u: jax.Array, came: jax.Array, g: jax.Array, v_hat: jax.Array
    ) -> tuple[jax.Array]:
        rms = root_mean_square(g, v_hat, numerics.as_scalar(eps, v_hat.dtype), shards.axes_of(own, g, v_hat))
        u = numerics.divide(u, jnp.maximum(rms, 1))
        return (u.astype(update_dtype(came, u)),)

    def update(
        updates: Any, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        moments = check_message("clip_by_second_moment()", updates)
        (g,) = map_leaves(widened, 1, moments.gradients, moments.nu)
        # Given wide gradients, tx rounds nothing to half precision: that is done once, here.
        u, state = inner.update(moments.replace(gradients=g), state, params, **extra_args)
        on_leaf = functools.partial(shortened, shards.varying(moments.count))
        return map_leaves(on_leaf, 1, u, moments.gradients, g, moments.v_hat())[0], state

    return optax.GradientTransformationExtraArgs(inner.init, update)


@names_hints
def stable_adamw(
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
    """StableAdamW: `adamw` inside the stage `clip_by_second_moment`.

    `θ_t = θ_{t-1} - α / max(1, RMS_t) · (m̂_t / (√(v̂_t + ε_root) + ε) + λ θ_{t-1})`, RMS as there.

    Wortsman et al. (2023), arXiv 2304.13013, Algorithm 2; the decay of its averages, which moves with t, is the bias
    correction in another form.

    Args:
        learning_rate: α, a number or a schedule over the step count, see `scale_by_lr`.
        b1: β1 in [0, 1), how much of m a step keeps.
        b2: β2 in [0, 1), how much of v a step keeps.
        eps: ε >= 0, added to the root of v, see `bias_correction`.
        eps_root: ε_root >= 0, added to v inside the root.
        mu_dtype: the dtype or codec that stores m, None: float32 or wider, see `scale_by_moments`.
        weight_decay: λ, a number or a schedule, see `add_decayed_weights`.
        mask: which leaves decay: a tree of booleans, or a function that makes one, as `adamx.not_matching` does.
        nu_dtype: the dtype or codec that stores v, None: float32 or wider, see `scale_by_moments`.
        precise: exact for β1 and β2 close to 1, see `scale_by_moments`.

    Returns:
        A transformation from gradients to updates that needs the parameters; its state is `(MomentsState, states of the
        correction and of the decay, state of scale_by_lr)`.

    Raises:
        ValueError, TypeError: as the stages do.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx, params = adamx.stable_adamw(0.1, weight_decay=0.5), jnp.ones(1)
        >>> tx.update(jnp.array([3.0]), tx.init(params), params)[0].round(3)
        Array([-0.15], dtype=float32)
    """
    moments = scale_by_moments(b1, b2, mu_dtype=mu_dtype, nu_dtype=nu_dtype, precise=precise)
    step = chain(bias_correction(eps, eps_root), add_decayed_weights(weight_decay, mask))
    return chain(moments, clip_by_second_moment(step, eps), scale_by_lr(learning_rate))
