"""AMSGrad, Reddi, Kale & Kumar (2018): a second moment that never falls."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from adamx import hyperparameters, numerics
from adamx.core.chain import chain
from adamx.core.errors import wrong_state
from adamx.core.message import Message, check_message
from adamx.core.moments import scale_by_moments
from adamx.core.rate import ScalarOrSchedule, scale_by_lr
from adamx.core.stages import bias_correction
from adamx.core.state import MomentsState
from adamx.hyperparameters import names_hints
from adamx.numerics import Scalar
from adamx.trees import check_fits, first_state, leaf_dtype, map_leaves


class RunningMaxState(NamedTuple):
    """The state of `running_max`.

    Attributes:
        nu_max: the largest v or v̂ so far, a tree of the parameters' structure and shapes.
    """

    nu_max: optax.Updates


class AmsgradState(NamedTuple):
    """What AMSGrad keeps between steps, under optax's names and in its layout.

    Attributes:
        count: as in `MomentsState`, as are the next two.
        mu: m.
        nu: v.
        nu_max: as in `RunningMaxState`.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    mu: optax.Updates
    nu: optax.Updates
    nu_max: optax.Updates


@names_hints
def running_max(corrected: bool = True) -> optax.GradientTransformationExtraArgs:
    """Replaces v̂ by the largest v̂ so far, element by element, between stage 1 and stage 2.

    `v̂max_t = max(v̂max_{t-1}, v̂_t)`, which replaces v̂ in line 11.

    Reddi, Kale & Kumar, "On the Convergence of Adam and Beyond" (2018), arXiv 1904.09237, Algorithm 2. The maximum is
    kept in float32 (float64 for 64-bit parameters) however v is stored: it never decays, and what rounding adds to it
    would stay for ever. A v̂ that overflows is kept as the largest finite number; the step in which it does is at most
    2/(1-β1^t) long.

    Args:
        corrected: take the maximum of the corrected v̂, as optax does. False: of v, which stage 2 then divides by its
            weight of this step, as torch does; with `uncorrected` as stage 2 this is the paper's algorithm.

    Returns:
        A transformation from `Moments` to `Moments` whose state is `RunningMaxState`.

    Raises:
        TypeError: corrected is no boolean; at update, anything but `Moments`, or a state that is not its own.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> stages = adamx.scale_by_moments(b2=0.5), adamx.optimizers.running_max(), adamx.bias_correction()
        >>> tx = optax.chain(*stages)
        >>> state = tx.init(jnp.zeros(1))
        >>> for g in (4.0, 0.0, 0.0):
        ...     _, state = tx.update(jnp.array([g]), state)
        >>> state[1].nu_max, state[0].nu
        (Array([16.], dtype=float32), Array([2.], dtype=float32))
    """
    corrected = hyperparameters.flag("corrected", corrected)

    def zeros(path: Any, p: Any) -> tuple[jax.Array]:
        dtype = numerics.real_dtype(numerics.compute_dtype(leaf_dtype("parameter", path, p)))
        return (jnp.zeros_like(p, dtype=jax.dtypes.canonicalize_dtype(dtype)),)

    def larger(v: jax.Array, v_max: jax.Array) -> tuple[jax.Array, jax.Array]:
        v_max = jnp.asarray(v_max)
        fresh = numerics.saturate_second_moment(
            jnp.maximum(v_max.astype(v.dtype), v), float(jnp.finfo(v_max.dtype).max)
        )
        return fresh, fresh.astype(v_max.dtype)

    def init(params: optax.Params) -> RunningMaxState:
        return RunningMaxState(first_state(zeros, 1, params)[0])

    def update(
        updates: Any, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[Any, RunningMaxState]:
        moments = check_message("running_max()", updates, Message)
        before = _check_state(state, moments.nu)
        fresh, nu_max = map_leaves(larger, 2, moments.v_hat() if corrected else moments.nu, before.nu_max)
        changes = {"v_hat": fresh} if corrected else {"nu": fresh, "nu_weight": moments.nu_weight}
        return moments.replace(**changes), RunningMaxState(nu_max)

    return optax.GradientTransformationExtraArgs(init, update)


def _check_state(state: Any, nu: optax.Updates) -> RunningMaxState:
    if not isinstance(state, RunningMaxState):
        raise wrong_state("RunningMaxState", state)
    try:
        check_fits(state.nu_max, nu, "nu_max", "nu")
    except (TypeError, ValueError) as error:
        raise wrong_state("RunningMaxState", state, f" in which {error}") from None
    return state


@names_hints
def scale_by_amsgrad(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    nu_dtype: DTypeLike | None = None,
    precise: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Stage 1, `running_max` and stage 2 under one `AmsgradState`: gradients in, direction out.

    The arguments come in the order of `optax.scale_by_amsgrad`.

    Args:
        b1: β1 in [0, 1), how much of m a step keeps.
        b2: β2 in [0, 1), how much of v a step keeps.
        eps: ε >= 0, added to the root of v, see `bias_correction`.
        eps_root: ε_root >= 0, added to v inside the root.
        mu_dtype: the dtype or codec that stores m, None: float32 or wider, see `scale_by_moments`.
        bias_correction_mu: False: m is not divided by 1-β1^t.
        bias_correction_nu: False: v is not divided by 1-β2^t.
        nu_dtype: the dtype or codec that stores v, None: float32 or wider, see `scale_by_moments`.
        precise: exact for β1 and β2 close to 1, not bitwise identical to optax, see `scale_by_moments`.

    Returns:
        A transformation from gradients to the direction in their dtype; its state is `AmsgradState`.

    Raises:
        ValueError, TypeError: as the stages do.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.optimizers.scale_by_amsgrad()
        >>> tx.update(jnp.array([-3.0]), tx.init(jnp.zeros(1)))[0]
        Array([-0.9999934], dtype=float32)
    """
    correct_mu = hyperparameters.flag("bias_correction_mu", bias_correction_mu)
    correct_nu = hyperparameters.flag("bias_correction_nu", bias_correction_nu)
    averages = scale_by_moments(b1, b2, mu_dtype=mu_dtype, nu_dtype=nu_dtype, precise=precise)
    maximum, quotient = running_max(corrected=correct_nu), bias_correction(eps, eps_root)

    def init(params: optax.Params) -> Any:
        return _one_state(averages.init(params), maximum.init(params))

    def update(
        updates: Any, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[Any, Any]:
        first, second = _two_states(state)
        updates, first = averages.update(updates, first, params, **extra_args)
        updates, second = maximum.update(updates, second, params)
        moments = check_message("bias_correction()", updates)
        moments = moments.replace(v_hat=moments.nu, **({} if correct_mu else {"m_hat": moments.mu}))
        direction, _ = quotient.update(moments, optax.EmptyState())
        return direction, _one_state(first, second)

    return optax.GradientTransformationExtraArgs(init, update)


def _one_state(moments: Any, maximum: Any) -> AmsgradState:
    return AmsgradState(**moments._asdict(), **maximum._asdict())


def _two_states(state: Any) -> tuple[Any, RunningMaxState]:
    if not isinstance(state, AmsgradState):
        raise wrong_state("AmsgradState", state)
    return MomentsState(state.count, state.mu, state.nu), RunningMaxState(state.nu_max)


@names_hints
def amsgrad(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    nu_dtype: DTypeLike | None = None,
    precise: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """AMSGrad, a drop-in for `optax.amsgrad`: the same arguments, updates and layout of the state.

    `θ_t = θ_{t-1} - α m̂_t / (√(max(v̂_1, ..., v̂_t) + ε_root) + ε)`.

    Reddi, Kale & Kumar, "On the Convergence of Adam and Beyond" (2018), arXiv 1904.09237, Algorithm 2, with Adam's
    corrections, which the paper leaves out: `bias_correction_mu=False, bias_correction_nu=False` is the paper's. torch
    takes the maximum of v and corrects it afterwards; that is the chain of `scale_by_moments`,
    `running_max(corrected=False)`, `bias_correction` and `scale_by_lr`.

    Args:
        learning_rate: α, a number or a schedule over the step count, see `scale_by_lr`.
        b1: β1 in [0, 1), how much of m a step keeps.
        b2: β2 in [0, 1), how much of v a step keeps.
        eps: ε >= 0, added to the root of v, see `bias_correction`.
        eps_root: ε_root >= 0, added to v inside the root.
        mu_dtype: the dtype or codec that stores m, None: float32 or wider, see `scale_by_moments`.
        bias_correction_mu: divide m by its weight.
        bias_correction_nu: divide v by its weight, before the maximum is taken.
        nu_dtype: the dtype that stores v, see `scale_by_moments`; the maximum stays float32.
        precise: exact for β1 and β2 close to 1, not bitwise identical to optax, see `scale_by_moments`.

    Returns:
        A transformation from gradients to updates; its state is `(AmsgradState, state of scale_by_lr)`.

    Raises:
        ValueError, TypeError: as the stages do.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.amsgrad(0.1)
        >>> updates, state = tx.update(jnp.array([2.0]), tx.init(jnp.zeros(1)))
        >>> updates.round(3), state[0].nu_max.round(3)
        (Array([-0.1], dtype=float32), Array([4.], dtype=float32))
    """
    direction = scale_by_amsgrad(
        b1, b2, eps, eps_root, mu_dtype, bias_correction_mu, bias_correction_nu, nu_dtype=nu_dtype, precise=precise
    )
    return chain(direction, scale_by_lr(learning_rate))
