"""ADOPT, Taniguchi et al. (2024): the gradient is divided by the second moment before it, and then averaged."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from adamx import hyperparameters, numerics
from adamx.core.composition import chain
from adamx.core.correction import update_dtype
from adamx.core.moments import check_rates, scale_by_moments
from adamx.core.rate import ScalarOrSchedule, check_schedule, scale_by_lr
from adamx.core.state import DitheredMomentsState, MomentsState, check_state, increment
from adamx.hyperparameters import names_hints
from adamx.numerics import Scalar
from adamx.storage import Codec
from adamx.storage.choice import moment_codecs
from adamx.storage.codec import Stored, precision, shapes
from adamx.storage.dither import MOMENTS, Walk, fraction, lower_half, walks
from adamx.trees import check_fits, map_leaves

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
    return _within(numerics.clamp_look_ahead(quotient), limit)


def _within(x: jax.Array, limit: Scalar) -> jax.Array:
    if jnp.iscomplexobj(x):
        return jax.lax.complex(_within(x.real, limit), _within(x.imag, limit))
    return jnp.clip(x, -limit, limit)


@dataclasses.dataclass(frozen=True, eq=False)
class _Averages:
    """Algorithm 2 on one leaf, with how its moments are stored."""

    b1: Scalar
    b2: Scalar
    eps: Scalar
    nesterov: bool
    mu_codec: Codec
    nu_codec: Codec
    precise: bool

    @property
    def dithered(self) -> bool:
        return self.mu_codec.dithered or self.nu_codec.dithered

    @property
    def dithers_sum(self) -> bool:
        return self.precise and numerics.needs_dither(float(self.b2))

    def step(
        self, g: jax.Array, mu: Stored, nu: Stored, walk: Walk | None, first: jax.Array, limit: Scalar
    ) -> tuple[Any, ...]:
        """The direction, and the moments as they are kept."""
        mu, nu = jax.tree.map(jnp.asarray, (mu, nu))
        dtype = numerics.compute_dtype(jnp.result_type(g), precision(mu), precision(nu))
        real = numerics.real_dtype(dtype)
        wide = dtype if jnp.issubdtype(precision(mu), jnp.complexfloating) else real
        b1, b2, eps, limit = (numerics.as_scalar(x, real) for x in (self.b1, self.b2, self.eps, limit))
        came, g = g, jnp.asarray(g, wide)
        before, v = self.mu_codec.decode(mu, wide), self.nu_codec.decode(nu, real)
        bits = None if walk is None else walk.thresholds(g.shape)
        threshold = fraction(bits) if bits is not None and self.dithers_sum and real == jnp.float32 else None

        x = normalized(g, v, eps, limit)
        m = numerics.bound_first_moment(numerics.ema(b1, before, x, precise=self.precise), self.mu_codec.largest(mu))
        u = numerics.ema(b1, m, x, precise=self.precise) if self.nesterov else m
        m, u = jnp.where(first, before, m), jnp.where(first, before, u)
        average = numerics.ema(b2, v, numerics.square(g), precise=self.precise, threshold=threshold)
        v = jnp.where(first, numerics.square(g), average)

        v = numerics.saturate_second_moment(v, self.nu_codec.largest(nu))
        mu_bits = None if bits is None or not self.mu_codec.dithered else lower_half(bits)
        mu = self.mu_codec.encode(m, mu, mu_bits, square=False)
        nu = self.nu_codec.encode(v, nu, bits if self.nu_codec.dithered else None, square=True)
        return u.astype(update_dtype(came, u)), mu, nu


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
    """Averages gradients that are divided by the second moment of those before them: stages 1 and 2 in another order.

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
        mu_dtype: the dtype that stores m, see `scale_by_moments`.
        nesterov: go on by m_t averaged once more with the same quotient.
        use_clipping: False leaves the clip out, as in Algorithm 1.
        clip_value_fn: from t to c_t; None: t^(1/4).
        nu_dtype: the dtype that stores v, likewise.
        precise: exact for β close to 1, likewise.

    Returns:
        A transformation from gradients to the direction in their dtype; its state is that of `scale_by_moments`.

    Raises:
        ValueError, TypeError: as `scale_by_moments` and `bias_correction` do; at init, a clip_value_fn that does not
            take a count or does not give a number.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.scale_by_adopt()
        >>> state = tx.init(jnp.zeros(1))
        >>> for g in (4.0, 2.0):
        ...     direction, state = tx.update(jnp.array([g]), state)
        ...     print(round(float(direction[0]), 4), end=" ")
        0.0 0.05
    """
    moments = scale_by_moments(b1, b2, mu_dtype=mu_dtype, nu_dtype=nu_dtype, precise=precise)
    eps, clips = hyperparameters.nonnegative("eps", eps), hyperparameters.flag("use_clipping", use_clipping)
    mu_codec, nu_codec = moment_codecs(mu_dtype, nu_dtype, b1, b2)
    averages = _Averages(b1, b2, eps, hyperparameters.flag("nesterov", nesterov), mu_codec, nu_codec, precise)
    state_type = DitheredMomentsState if averages.dithered else MomentsState
    clip_value = fourth_root if clip_value_fn is None else clip_value_fn

    def init(params: optax.Params) -> optax.OptState:
        check_schedule("clip_value_fn", clip_value)
        return moments.init(params)

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        before = check_state(state_type, state, updates)
        check_fits(updates, shapes(before.mu), of_state=True)
        if not precise:
            check_rates(b1, b2, before.mu)
        count = jnp.asarray(before.count)
        step = before.step + 1 if averages.dithered else count + 1
        limit = hyperparameters.scalar("the value of clip_value_fn", clip_value(count)) if clips else float("inf")

        def on_leaf(g: jax.Array, mu: Stored, nu: Stored, walk: Walk | None = None) -> tuple[Any, ...]:
            return averages.step(g, mu, nu, walk, count == 0, limit)

        columns = [before.mu, before.nu]
        if averages.dithered or averages.dithers_sum:
            seeds = (mu_codec.seed, nu_codec.seed)
            columns.append(walks(updates, step, MOMENTS, seeds, extra_args.get("dither_offset")))
        u, mu, nu = map_leaves(on_leaf, 3, updates, *columns)
        return u, state_type(increment(count), mu, nu, *([step] if averages.dithered else []))

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

    `θ_t = θ_{t-1} - α m_t`, m as in `scale_by_adopt`, with its arguments and errors. Weight decay goes between that and
    `scale_by_lr`. Updates agree with those of optax as far as its float32 has 1-β2, to 2e-4 at the default.

    Taniguchi et al. (2024), arXiv 2411.02853, Algorithm 2.

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
