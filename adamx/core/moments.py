"""Stage 1, lines 5 to 8 of Algorithm 1: the two averages."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike

from adamx import hyperparameters, numerics
from adamx.core.composition import wrong_state
from adamx.core.message import Moments, Weight, check_is_moments
from adamx.hyperparameters import names_hints
from adamx.numerics import Scalar
from adamx.storage import Float, moment_codec
from adamx.trees import Tree, check_fits, check_leaves, leaf_dtype, map_leaves, path_name, result_dtype


class MomentsState(NamedTuple):
    """What Adam keeps between steps, under optax's names and in its layout.

    Attributes:
        count: the number of steps taken, an int32 scalar that saturates at 2^31-1.
        mu: m, a tree of the parameters' structure and shapes.
        nu: v, likewise, real and non-negative.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    mu: optax.Updates
    nu: optax.Updates


def increment(count: jax.Array) -> jax.Array:
    """Line 5: `t + 1`, which stays at the largest integer once it is there."""
    largest = jnp.iinfo(count.dtype).max
    return jnp.where(count < largest, count + 1, largest).astype(count.dtype)


def _check_state(state: Any) -> MomentsState:
    """The state itself, or a TypeError that says what is not as init made it."""
    if not isinstance(state, MomentsState):
        raise wrong_state("MomentsState", state)
    kind, shape = getattr(state.count, "dtype", np.dtype(type(state.count))), np.shape(state.count)
    if shape or not jnp.issubdtype(kind, jnp.integer):
        raise wrong_state("MomentsState", state, f" whose count is {kind}{list(shape)}")
    try:
        check_leaves("mu", state.mu)
        check_fits(state.nu, state.mu, "nu", "mu")
    except (TypeError, ValueError) as error:
        raise wrong_state("MomentsState", state, f" in which {error}") from None
    return state


@names_hints
def scale_by_moments(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    *,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    precise: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Averages the gradients and their squares.

    `m_t = β1 m_{t-1} + (1-β1) g_t`, `v_t = β2 v_{t-1} + (1-β2) g_t²`, from `m_0 = v_0 = 0`.

    Kingma & Ba (2015), Algorithm 1, lines 5 to 8. Averages in float32 or wider whatever the gradients are, so that
    half-precision squares neither vanish nor overflow; v saturates at the largest finite number.

    Args:
        b1: β1 in [0, 1), how much of m a step keeps.
        b2: β2 in [0, 1), how much of v a step keeps.
        mu_dtype: the floating dtype that stores m, rounded to nearest; None: float32, float64 for float64 parameters.
        nu_dtype: the floating dtype that stores v, float32 or float64; None as for m.
        precise: average and weigh in forms that are exact to a few units in the last place in each step, for β close to
            1 and any count, instead of those that give the same bits as optax. Roundings still add up: after 1e7 steps
            v is within 1e-4 for β2 up to 0.99999, and within 5e-3 at 0.999999.

    Returns:
        A transformation whose update gives `Moments`, to be taken by `bias_correction` or `uncorrected`, and whose
        state is `MomentsState`.

    Raises:
        ValueError: b1 or b2 out of range or of half precision; a storage dtype that cannot hold its average; at
            update, gradients of another structure or shape than the parameters.
        TypeError: arguments of another type; traced b1 or b2 with `precise`; leaves that are not floating arrays;
            a state that is not this transformation's.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> tx = optax.chain(adamx.scale_by_moments(b1=0.2), adamx.bias_correction(), adamx.scale_by_lr(0.1))
        >>> updates, state = tx.update(jnp.array([10.0]), tx.init(jnp.zeros(1)))
        >>> updates.round(3)
        Array([-0.1], dtype=float32)
    """
    precise = hyperparameters.flag("precise", precise)
    b2 = hyperparameters.decay_rate(
        "b2", b2, precise=precise
    )  # first: where both are of half precision, b2 is the trap
    b1 = hyperparameters.decay_rate("b1", b1, precise=precise)
    mu_codec = moment_codec("mu_dtype", mu_dtype, "b1", b1)
    nu_codec = moment_codec("nu_dtype", nu_dtype, "b2", b2)

    def average(g: jax.Array, mu: jax.Array, nu: jax.Array) -> tuple[jax.Array, ...]:
        mu, nu = jnp.asarray(mu), jnp.asarray(nu)
        dtype = result_dtype(g, mu, nu)
        real = numerics.real_dtype(dtype)
        beta1, beta2 = numerics.as_scalar(b1, dtype), numerics.as_scalar(b2, real)
        wide = dtype if jnp.iscomplexobj(mu) else real
        if not precise:
            hyperparameters.check_below_one("b1", b1, real)
            hyperparameters.check_below_one("b2", b2, real)
        g, m, v = jnp.asarray(g, wide), mu_codec.decode(mu, wide), nu_codec.decode(nu, real)

        m = numerics.ema(beta1, m, g, precise=precise)  # line 7
        v = numerics.ema(beta2, v, numerics.square(g), precise=precise)  # line 8

        m = numerics.bound_first_moment(m, numerics.real_dtype(mu.dtype))
        v = numerics.saturate_second_moment(v, nu.dtype)
        return m, v, mu_codec.encode(m, mu.dtype), nu_codec.encode(v, nu.dtype)

    def init(params: optax.Params) -> MomentsState:
        def zeros(codec: Float, real: bool) -> Tree:
            def leaf(path: Any, p: Any) -> jax.Array:
                return codec.zeros(p, leaf_dtype("parameter", path, p), real=real, where=path_name(path))

            return jax.tree_util.tree_map_with_path(leaf, params)

        return MomentsState(jnp.zeros([], jnp.int32), zeros(mu_codec, False), zeros(nu_codec, True))

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[Any, MomentsState]:
        before = _check_state(state)
        check_fits(updates, before.mu)
        count = increment(jnp.asarray(before.count))  # line 5
        m, v, mu, nu = map_leaves(average, 4, updates, before.mu, before.nu)
        moments = Moments(
            count=count,
            gradients=updates,
            mu=m,
            nu=v,
            b1=b1,
            b2=b2,
            mu_weight=Weight(b1, count, precise),
            nu_weight=Weight(b2, count, precise),
        )
        return moments, MomentsState(count, mu, nu)

    return optax.GradientTransformationExtraArgs(init, update)


def on_first_moment(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Applies a transformation of parameter-shaped trees to m alone, between stage 1 and stage 2.

    Args:
        tx: any transformation, `optax.clip_by_global_norm(1.0)` say; v is left as it is.

    Returns:
        A transformation from `Moments` to `Moments` that keeps the state of `tx`.

    Raises:
        TypeError: its update does not get `Moments`.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> signed = adamx.on_first_moment(optax.scale_by_sign())
        >>> tx = optax.chain(adamx.scale_by_moments(), signed, adamx.uncorrected())
        >>> tx.init(jnp.zeros(1))[1]
        EmptyState()
    """
    inner = optax.with_extra_args_support(tx)

    def update(
        updates: Any, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[Any, optax.OptState]:
        moments = check_is_moments("on_first_moment(tx)", updates)
        mu, state = inner.update(moments.mu, state, params, **extra_args)
        return moments.replace(mu=mu), state

    return optax.GradientTransformationExtraArgs(inner.init, update)
