"""AdEMAMix, Pagliardini et al. (2024): a second, slow average of the gradients beside m."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from adamx import hyperparameters, numerics
from adamx.core.average import Average
from adamx.core.chain import chain
from adamx.core.decay import Mask, add_decayed_weights
from adamx.core.errors import wrong_state
from adamx.core.message import Moments, check_message
from adamx.core.moments import scale_by_moments
from adamx.core.rate import ScalarOrSchedule, check_schedule, scale_by_lr
from adamx.core.stages import bias_correction
from adamx.hyperparameters import names_hints
from adamx.numerics import Scalar
from adamx.storage.choice import moment_codec
from adamx.storage.codec import Stored, shapes
from adamx.storage.dither import Walk
from adamx.storage.pairs import check_moment, check_rounding
from adamx.trees import check_fits, map_leaves


class SlowMomentumState(NamedTuple):
    """The state of `slow_momentum`.

    Attributes:
        mu_slow: the slow average, a tree of the parameters' structure and shapes.
    """

    mu_slow: optax.Updates


def ademamix_alpha(alpha: float, steps: int) -> Callable[[Any], jax.Array]:
    """A schedule along which the weight of the slow average grows in proportion to the step, `α_t = min(t α / T, α)`.

    Pagliardini et al. (2024), arXiv 2409.03137, section 3; t is the count of steps taken before, plus 1.

    Args:
        alpha: α >= 0, where it ends.
        steps: T, in how many steps; the paper takes all of the training.

    Returns:
        A function from the count to α_t, for `slow_momentum` and `ademamix`.

    Raises:
        ValueError, TypeError: an argument out of range or of another type.

    Example:
        >>> import adamx
        >>> alpha = adamx.optimizers.ademamix_alpha(4.0, steps=100)
        >>> [float(alpha(count)) for count in (24, 99, 500)]
        [1.0, 4.0, 4.0]
    """
    last, steps = hyperparameters.nonnegative("alpha", alpha), hyperparameters.integer("steps", steps, 1)
    return lambda count: last * _progress(count, steps)


def ademamix_b3(b3: float, steps: int, b1: float = 0.9) -> Callable[[Any], jax.Array]:
    """A schedule from β1 to β3 along which the half-life of the slow average grows in proportion to the step.

    `β3_t = min(exp(ln β1 ln β3 / ((1-t/T) ln β3 + (t/T) ln β1)), β3)`: 1/ln β goes from one to the other
    (Pagliardini et al., 2024, arXiv 2409.03137, section 3).

    Args:
        b3: β3 in [0, 1), where it ends.
        steps: T >= 1, in how many steps; the paper takes all of the training.
        b1: β1 in [0, 1), where it starts.

    Returns:
        A function from the count of steps taken to β3_t, for `slow_momentum` and `ademamix`.

    Raises:
        ValueError, TypeError: an argument out of range or of another type.

    Example:
        >>> import adamx
        >>> b3 = adamx.optimizers.ademamix_b3(0.999, steps=1000)
        >>> [round(float(b3(count)), 4) for count in (0, 9, 99, 999)]
        [0.909, 0.9497, 0.9908, 0.999]
    """
    known = [float(hyperparameters.decay_rate(name, b, precise=True)) for name, b in (("b1", b1), ("b3", b3))]
    steps = hyperparameters.integer("steps", steps, 1)
    start, end = (1 / math.log(b) if b > 0 else 0.0 for b in known)

    def schedule(count: Any) -> jax.Array:
        progress = _progress(count, steps)
        return jnp.minimum(jnp.exp(1 / ((1 - progress) * start + progress * end)), known[1])

    return schedule


def _progress(count: Any, steps: int) -> jax.Array:
    """`min(t / T, 1)` with t = count + 1."""
    return jnp.minimum((jnp.asarray(count).astype(jnp.result_type(float)) + 1) / steps, 1.0)


@names_hints
def slow_momentum(
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 5.0,
    *,
    mu_dtype: DTypeLike | None = None,
    precise: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Adds a slow average of the gradients to the corrected m, between stage 1 and stage 2.

    `m̂_t + α_t n_t`, with `n_t = β3_t n_{t-1} + (1-β3_t) g_t` from `n_0 = 0`, which replaces m̂ in line 11.

    Pagliardini et al., "The AdEMAMix Optimizer: Better, Faster, Older" (2024), arXiv 2409.03137, Algorithm 1, where m
    is m_1 and n is m_2. n is not corrected: it fills slowly. In the paper both arguments grow over the training, by
    `ademamix_alpha` and `ademamix_b3`. A model of 1.3 billion parameters took half the tokens of AdamW there.

    Args:
        b3: β3 in [0, 1), how much of n a step keeps, or a schedule of the step count.
        alpha: α >= 0, the weight of n, or a schedule of the step count.
        mu_dtype: the dtype that stores n, or a codec, see `scale_by_moments`; half precision is dithered at this β3.
        precise: exact for β3 close to 1, see `scale_by_moments`; not with a schedule.

    Returns:
        A transformation from `Moments` to `Moments` whose m is corrected already, that keeps `SlowMomentumState`.

    Raises:
        ValueError: b3 or alpha out of range.
        TypeError: arguments of another type, a schedule of b3 with `precise`; at init, a schedule that does not give a
            number; at update, anything but `Moments`, or a state that is not its own.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> tx = optax.chain(adamx.scale_by_moments(), adamx.optimizers.slow_momentum(b3=0.9), adamx.bias_correction())
        >>> direction, state = tx.update(jnp.array([2.0]), tx.init(jnp.zeros(1)))
        >>> round(float(direction[0]), 3), state[1].mu_slow.round(3)
        (1.5, Array([0.2], dtype=float32))
    """
    if hyperparameters.flag("precise", precise) and callable(b3):
        raise TypeError("precise=True needs b3 as a Python float, got a schedule: its values are rounded already")
    decay = b3 if callable(b3) else hyperparameters.decay_rate("b3", b3, precise=precise)
    weight = alpha if callable(alpha) else hyperparameters.nonnegative("alpha", alpha)
    slowest = 1.0 if callable(decay) else decay  # where it is not known
    codec = moment_codec("mu_dtype", mu_dtype, slowest)
    check_rounding(codec, slowest)
    average = Average("b3", None if callable(decay) else decay, codec, precise)

    def init(params: optax.Params) -> Any:
        for name, value in (("b3", decay), ("alpha", weight)):
            if callable(value):
                check_schedule(name, value)
        return SlowMomentumState(average.zeros(params))

    def update(
        updates: Any, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[Any, Any]:
        moments = check_message("slow_momentum()", updates)
        before = _check_state(state, moments)
        check_moment(codec, before.mu_slow, moments.nu_codec, moments.nu)
        b3_t, alpha_t = _at("b3", decay, moments), _at("alpha", weight, moments)

        def mixed(g: jax.Array, m: jax.Array, kept: Stored, walk: Walk | None = None) -> tuple[jax.Array, Stored]:
            n, kept = average.step(b3_t, g, kept, m.dtype, walk)
            if isinstance(alpha_t, float) and alpha_t == 0.0:
                return m, kept  # not m + 0, which the compiler contracts otherwise: the bits of Adam
            return m + numerics.as_scalar(alpha_t, numerics.real_dtype(m.dtype)) * n, kept

        columns = [moments.m_hat(), before.mu_slow]
        columns += average.walks(moments.gradients, moments.count, extra_args.get("dither_offset"))
        m, n = map_leaves(mixed, 2, moments.gradients, *columns)
        return moments.replace(m_hat=m), SlowMomentumState(n)

    return optax.GradientTransformationExtraArgs(init, update)


def _at(name: str, value: ScalarOrSchedule, moments: Moments) -> Scalar:
    """A hyperparameter in this step."""
    if not callable(value):
        return value
    return hyperparameters.scalar(f"the value of the {name} schedule", value(moments.count - 1))


def _check_state(state: Any, moments: Moments) -> SlowMomentumState:
    if not isinstance(state, SlowMomentumState):
        raise wrong_state("SlowMomentumState", state)
    try:
        check_fits(shapes(state.mu_slow), moments.mu, "mu_slow", "mu")
    except (TypeError, ValueError) as error:
        raise wrong_state("SlowMomentumState", state, f" in which {error}") from None
    return state


@names_hints
def ademamix(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 5.0,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
    *,
    nu_dtype: DTypeLike | None = None,
    precise: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """AdEMAMix with the arguments and updates of `optax.contrib.ademamix`: `adamw` with the stage `slow_momentum`.

    `θ_t = θ_{t-1} - α (m̂_t + α_t n_t) / (√(v̂_t + ε_root) + ε) - α λ θ_{t-1}`, n as there
    (Pagliardini et al., 2024, arXiv 2409.03137, Algorithm 1).

    Args:
        learning_rate: α, a number or a schedule over the step count, see `scale_by_lr`.
        b1: β1 in [0, 1), how much of m a step keeps.
        b2: β2 in [0, 1), how much of v a step keeps.
        b3: β3 in [0, 1), how much of the slow average n a step keeps; a number or a schedule, see `ademamix_b3`.
        alpha: α_t >= 0, the weight of n; a number or a schedule, see `ademamix_alpha`.
        eps: ε >= 0, added to the root of v, see `bias_correction`.
        eps_root: ε_root >= 0, added to v inside the root.
        mu_dtype: the dtype or codec that stores m and n, None: float32 or wider, see `scale_by_moments`.
        weight_decay: λ, a number or a schedule, see `add_decayed_weights`.
        mask: which leaves decay: a tree of booleans, or a function that makes one, as `adamx.not_matching` does.
        nu_dtype: the dtype or codec that stores v, None: float32 or wider, see `scale_by_moments`.
        precise: exact for β1 and β2 close to 1, see `scale_by_moments`.

    Returns:
        A transformation that needs the parameters; its state, `(MomentsState, SlowMomentumState, ...)`, is not optax's.

    Raises:
        ValueError, TypeError: as the stages do.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> steps, params = 1000, jnp.ones(1)
        >>> b3, alpha = adamx.optimizers.ademamix_b3(0.999, steps), adamx.optimizers.ademamix_alpha(5.0, steps)
        >>> tx = adamx.ademamix(0.1, b3=b3, alpha=alpha)
        >>> tx.update(jnp.array([2.0]), tx.init(params), params)[0].round(3)
        Array([-0.1], dtype=float32)
    """
    return chain(
        scale_by_moments(b1, b2, mu_dtype=mu_dtype, nu_dtype=nu_dtype, precise=precise),
        slow_momentum(b3, alpha, mu_dtype=mu_dtype, precise=precise),
        bias_correction(eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(learning_rate),
    )
