"""What a run of `minimize` gives: in the end, and after each step."""

import enum
from typing import Any, NamedTuple

import jax
import numpy as np
import optax


class StopReason(enum.IntEnum):
    """Why `minimize` stopped.

    Attributes:
        CONVERGED: no parameter moved by `atol` or more.
        MAX_STEPS: `max_steps` steps were taken.
        NONFINITE: the objective, or a parameter after the step, was NaN or infinite; that step was not taken.
        NO_MORE_BATCHES: the batches ran out.
        CALLBACK: the callback returned True.

    Example:
        >>> import adamx
        >>> print(adamx.loop.StopReason(1))
        CONVERGED
    """

    CONVERGED = 1
    MAX_STEPS = 2
    NONFINITE = 3
    NO_MORE_BATCHES = 4
    CALLBACK = 5

    def __str__(self) -> str:
        return self.name


class MinimizeResult(NamedTuple):
    """The result of `minimize`.

    Attributes:
        params: θ after the last step that was taken.
        state: of the transformation, after the same step.
        steps: how many steps were taken.
        stopped: why there were no more; under jit an int32 scalar, for `StopReason(int(stopped))`.
        history: `history[t]` is f(θ_t) in the dtype of f, where step t+1 set out; of shape (steps,). Under jit of shape
            (max_steps,), NaN from `steps` on; no NaN where `jax_debug_nans` was on as it was traced.
        aux: what fun returned besides in its last call, be it the one that was not finite; None without has_aux.
    """

    params: optax.Params
    state: optax.OptState
    steps: int | jax.Array
    stopped: StopReason | jax.Array
    history: np.ndarray | jax.Array
    aux: Any = None


class MinimizeStep(NamedTuple):
    """The argument of the callback of `minimize`, after each step.

    Attributes:
        steps: how many steps have been taken, from 1.
        value: the objective where this step set out, a scalar.
        params: after the step.
        state: of the optimizer, after the step.
        aux: what fun returned besides; None without has_aux.
    """

    steps: int
    value: jax.Array
    params: optax.Params
    state: optax.OptState
    aux: Any = None
