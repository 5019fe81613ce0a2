"""Stage 3, the α of line 11 in Algorithm 1."""

import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import ScalarOrSchedule

from adamx import hyperparameters
from adamx.core.errors import check_empty, schedule_added, wrong_state
from adamx.core.leaf import Term, scaled
from adamx.core.state import increment
from adamx.core.step import Update, Weights
from adamx.core.work import Tail
from adamx.hyperparameters import names_hints
from adamx.numerics import Scalar
from adamx.trees import check_leaves, map_leaves


def _check_rate(learning_rate: Any) -> ScalarOrSchedule:
    """A learning rate in the form the stage uses, or an error that says what to write instead."""
    usage = "usage: adamx.adam(1e-3), or adamx.adam(schedule) with a schedule from optax"
    if isinstance(learning_rate, optax.GradientTransformation):
        raise TypeError(f"learning_rate must be a number or a schedule, got another optimizer; {usage}")
    if callable(learning_rate):
        return cast(ScalarOrSchedule, learning_rate)
    if not isinstance(learning_rate, complex | str | np.generic | np.ndarray | jax.Array | int | float | None):
        kind = type(learning_rate).__name__
        raise TypeError(f"learning_rate must be a number or a schedule, got a tree ({kind}); {usage}")
    return hyperparameters.nonnegative("learning_rate", learning_rate)


def check_schedule(name: str, schedule: Callable[[Any], Any]) -> None:
    """Calls a schedule once, at step 0.

    Raises:
        TypeError: it does not take a count or does not give a real number.
        ValueError: it gives a negative, infinite or NaN number.
    """
    label = f"{name} schedule {getattr(schedule, '__name__', repr(schedule))}"
    try:
        value = schedule(jnp.zeros([], jnp.int32))
    except Exception as error:
        raise TypeError(f"{label} must take the step count and return a number: {error}") from error
    try:
        hyperparameters.scalar(f"the value of the {label}", value)
    except ValueError as error:
        raise TypeError(str(error)) from None
    hyperparameters.nonnegative(f"the value of the {label}", value)


def _scaled(factor: Scalar, u: Any) -> tuple[jax.Array]:
    """Line 11: in float32 or wider, back in the dtype that came."""
    return (scaled(factor, u).astype(jnp.result_type(u)),)


@names_hints
def scale_by_lr(learning_rate: ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
    """Multiplies the direction by the negative learning rate, `-α_t u_t`.

    Kingma & Ba (2015), Algorithm 1, line 11. Computed in float32 or wider; the dtype that came goes out.

    Args:
        learning_rate: α >= 0, in units of the parameters; or a schedule from the number of steps taken before this
            one, an int32 scalar, to α.

    Returns:
        A transformation of trees of arrays, without state for a number; for a schedule the state is
        `optax.ScaleByScheduleState(count)`.

    Raises:
        ValueError: a negative, infinite or NaN number, or an array with dimensions.
        TypeError: neither number nor schedule; at init, a schedule that does not give a number; at update, `Moments`,
            which need `bias_correction` first.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.scale_by_lr(0.5)
        >>> tx.update(jnp.array([2.0]), tx.init(jnp.zeros(1)))[0]
        Array([-1.], dtype=float32)
    """
    rate = _check_rate(learning_rate)

    def init(params: optax.Params) -> optax.OptState:
        if not callable(rate):
            return optax.EmptyState()
        check_schedule("learning_rate", rate)
        return optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int32))

    def advance(state: Any) -> tuple[Scalar, optax.OptState]:
        """α of this step, and the state after it."""
        if not callable(rate):
            return rate, check_empty(state, "learning_rate")
        if not isinstance(state, optax.ScaleByScheduleState):
            raise wrong_state("optax.ScaleByScheduleState", state, schedule_added("learning_rate", state))
        count = jnp.asarray(state.count)
        alpha = hyperparameters.scalar("the value of the learning_rate schedule", rate(count))
        return alpha, optax.ScaleByScheduleState(increment(count))

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        check_leaves("update", updates)
        alpha, state = advance(state)
        return map_leaves(functools.partial(_scaled, -alpha), 1, updates)[0], state

    def tail(state: Any, weights: Weights) -> tuple[Tail, optax.OptState]:
        alpha, state = advance(state)
        return Tail((Term(scale=-1 * alpha),), (0,) * len(jax.tree.leaves(weights.params))), state

    return optax.GradientTransformationExtraArgs(init, Update(update, tail=tail))
