"""ADOPT, Taniguchi et al. (2024): the gradient is divided by the second moment before it, and then averaged."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from adamx import hyperparameters, numerics
from adamx.core.averages import Averages, averages_of, checked_moments, of_squares
from adamx.core.chain import chain
from adamx.core.moments import moments_of
from adamx.core.rate import ScalarOrSchedule, check_schedule, scale_by_lr
from adamx.core.stages import update_dtype
from adamx.core.state import MomentsState, increment
from adamx.hyperparameters import names_hints
from adamx.numerics import Scalar
from adamx.storage import Int4
from adamx.storage.choice import NO_ROOT
from adamx.storage.codec import Stored
from adamx.storage.dither import MOMENTS, Walk, walks
from adamx.trees import map_leaves

ClipValue = Callable[[jax.Array], Any]
"""From the number of steps taken before this one to c_t."""


def fourth_root(count: jax.Array) -> jax.Array:
    """`c_t = t^(1/4)`, the paper's."""
    return jnp.asarray(count).astype(jnp.result_type(float)) ** 0.25


def normalized(g: jax.Array, v: jax.Array, eps: Scalar, limit: Scalar) -> jax.Array:
    """`clip(g / max(√v, ε), c)`, part by part for complex g; an infinite g becomes NaN, by `g - g`: it must show."""
    scale = jnp.maximum(numerics.root(v), eps)
    # With ε = 0 the limit of the quotient: 0 for g = 0, else what the clip leaves of infinity.
    quotient = numerics.divide(g, jnp.maximum(scale, float(jnp.finfo(v.dtype).tiny))) - (g - g)
    return _within(numerics.clamp_first_moment(quotient), limit)


def _within(x: jax.Array, limit: Scalar) -> jax.Array:
    if jnp.iscomplexobj(x):
        return jax.lax.complex(_within(x.real, limit), _within(x.imag, limit))
    return jnp.clip(x, -limit, limit)


@dataclasses.dataclass(frozen=True, eq=False)
class Adopt:
    """Algorithm 2 on one leaf.

    Attributes:
        averages: both moments.
        eps: ε.
        nesterov: whether the direction looks one step ahead.
    """

    averages: Averages
    eps: Scalar
    nesterov: bool

    def step(
        self, g: jax.Array, mu: Stored, nu: Stored, walk: Walk | None, begins: jax.Array, limit: Scalar
    ) -> tuple[Any, ...]:
        """The direction, and the moments as they are kept."""
        mu, nu = jax.tree.map(jnp.asarray, (mu, nu))
        came = g
        g, before, v, first, second, bits = self.averages.load(g, mu, nu, walk)
        eps, limit = (numerics.as_scalar(x, v.dtype) for x in (self.eps, limit))

        x = normalized(g, v, eps, limit)
        m = numerics.bound_first_moment(first(before, x), self.averages.mu_codec.largest(mu))
        u = first(m, x) if self.nesterov else m
        m, u = jnp.where(begins, before, m), jnp.where(begins, before, u)
        v = jnp.where(begins, numerics.square(g), second(v, numerics.square(g)))
        v = numerics.saturate_second_moment(v, self.averages.nu_codec.largest(nu))
        return u.astype(update_dtype(came, u)), *self.averages.store(m, v, mu, nu, bits)


@names_hints
def scale_by_adopt(
    b1: Scalar = 0.9,
    b2: Scalar = 0.9999,
    eps: Scalar = 1e-6,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: ClipValue | None = None,
    nu_dtype: DTypeLike | None = None,
    precise: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Divides each gradient by the second moment of the earlier ones, then averages: stages 1 and 2 in other order.

    `m_t = β1 m_{t-1} + (1-β1) clip(g_t / max(√v_{t-1}, ε), c_t)`, `v_t = β2 v_{t-1} + (1-β2) g_t²`.

    The direction is m_t. The first gradient makes no step: from it `v_0 = g_0²`, and t counts those that follow.

    Taniguchi et al., "ADOPT: Modified Adam Can Converge with Any β2 with the Optimal Rate" (2024), arXiv 2411.02853,
    Algorithm 2. It is no stage between Adam's: these join m and v in one quotient, here v_{t-1} is needed before m_t is
    averaged, and nothing is corrected. v has no bias, and m, which has, is left with it, as in the paper. Evidence: a
    proof of convergence at the best possible rate for any β2, and the authors' experiments with images, language and
    reinforcement learning. The clip came later, when users had found early steps to be unstable.

    Args:
        b1: β1 in [0, 1), how much of m a step keeps.
        b2: β2 in [0, 1), how much of v a step keeps.
        eps: ε >= 0, in units of the gradient, the least that is divided by.
        mu_dtype: the dtype or codec that stores m, None: float32 or wider, see `scale_by_moments`.
        nesterov: go on by m_t averaged once more with the same quotient.
        use_clipping: False leaves the clip out, as in Algorithm 1.
        clip_value_fn: from t to c_t; None: t^(1/4).
        nu_dtype: the dtype or codec that stores v, None: float32 or wider, see `scale_by_moments`.
        precise: exact for β1 and β2 close to 1, see `scale_by_moments`.

    Returns:
        A transformation from gradients to the direction in their dtype; its state is that of `scale_by_moments`.

    Raises:
        ValueError, TypeError: as `scale_by_moments` and `bias_correction` do; at init, a clip_value_fn that does not
            take a count or does not give a number.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.optimizers.scale_by_adopt()
        >>> state = tx.init(jnp.zeros(1))
        >>> for g in (4.0, 2.0):
        ...     direction, state = tx.update(jnp.array([g]), state)
        ...     print(round(float(direction[0]), 4), end=" ")
        0.0 0.05
    """
    averages = averages_of(of_squares, b1, b2, mu_dtype, nu_dtype, precise)
    if isinstance(averages.mu_codec, Int4):
        raise ValueError(f"mu_dtype={averages.mu_codec!r}: {NO_ROOT}")
    eps, clips = hyperparameters.nonnegative("eps", eps), hyperparameters.flag("use_clipping", use_clipping)
    adopt_leaf = Adopt(averages, eps, hyperparameters.flag("nesterov", nesterov))
    clip_value = fourth_root if clip_value_fn is None else clip_value_fn

    def init(params: optax.Params) -> optax.OptState:
        check_schedule("clip_value_fn", clip_value)
        return moments_of(averages).init(params)

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        before = checked_moments(averages, state, updates)
        count = jnp.asarray(before.count)
        limit = hyperparameters.scalar("the value of clip_value_fn", clip_value(count)) if clips else float("inf")

        def on_leaf(g: jax.Array, mu: Stored, nu: Stored, walk: Walk | None = None) -> tuple[Any, ...]:
            return adopt_leaf.step(g, mu, nu, walk, count == 0, limit)

        columns = [before.mu, before.nu]
        if averages.draws:
            places = extra_args.get("dither_offset")
            columns.append(walks(updates, increment(count), MOMENTS, averages.seeds, places))
        u, mu, nu = map_leaves(on_leaf, 3, updates, *columns)
        return u, MomentsState(increment(count), mu, nu)

    return optax.GradientTransformationExtraArgs(init, update)


@names_hints
def adopt(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.9999,
    eps: Scalar = 1e-6,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: ClipValue | None = None,
    nu_dtype: DTypeLike | None = None,
    precise: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """ADOPT, a drop-in for `optax.contrib.adopt`: the same arguments and layout of the state.

    `θ_t = θ_{t-1} - α m_t`, m as in `scale_by_adopt`. Weight decay goes between that and
    `scale_by_lr`. Updates agree with those of optax as far as its float32 has 1-β2, to 2e-4 at the default.

    Taniguchi et al. (2024), arXiv 2411.02853, Algorithm 2.

    Args:
        learning_rate: α, a number or a schedule over the step count, see `scale_by_lr`.
        b1: β1 in [0, 1), how much of m a step keeps.
        b2: β2 in [0, 1), how much of v a step keeps.
        eps: ε >= 0, in units of the gradient, the least that is divided by.
        mu_dtype: the dtype or codec that stores m, None: float32 or wider, see `scale_by_moments`.
        nesterov: Nesterov's momentum: m_t averaged once more with the same quotient.
        use_clipping: False leaves the clip out, as in Algorithm 1.
        clip_value_fn: from t to c_t, the limit of the clip; None: t^(1/4).
        nu_dtype: the dtype or codec that stores v, None: float32 or wider, see `scale_by_moments`.
        precise: exact for β1 and β2 close to 1, see `scale_by_moments`.

    Returns:
        A transformation from gradients to updates; its state is `(MomentsState, state of scale_by_lr)`.

    Raises:
        ValueError, TypeError: as `scale_by_adopt` and `scale_by_lr` do.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.adopt(0.1)
        >>> tx.update(jnp.array([2.0]), tx.init(jnp.zeros(1)))[0]  # the first gradient only sets v
        Array([-0.], dtype=float32)
    """
    direction = scale_by_adopt(
        b1,
        b2,
        eps,
        mu_dtype,
        nesterov=nesterov,
        use_clipping=use_clipping,
        clip_value_fn=clip_value_fn,
        nu_dtype=nu_dtype,
        precise=precise,
    )
    return chain(direction, scale_by_lr(learning_rate))
