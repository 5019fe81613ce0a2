"""`minimize`: a run in one loop on the device where that can be, else step by step from Python."""

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from adamx import hyperparameters
from adamx.loop.objective import checked, strongly_typed
from adamx.loop.outcome import MinimizeResult, MinimizeStep, StopReason
from adamx.loop.run import GOING_ON, At, runner
from adamx.loop.stepwise import arguments, one_by_one
from adamx.numerics import Scalar
from adamx.variables import map_with_path


def minimize(
    fun: Callable[..., Any],
    params: optax.Params,
    tx: optax.GradientTransformation,
    *,
    max_steps: int,
    atol: Scalar | None = 0.0,
    batches: Iterable[Any] | None = None,
    has_aux: bool = False,
    callback: Callable[[MinimizeStep], bool | None] | None = None,
    progress: bool = False,
) -> MinimizeResult:
    """Minimizes a function: takes steps until no parameter moves by `atol`, or until `max_steps`.

    `while t < T and max|θ_t - θ_{t-1}| >= atol: θ_{t+1} = step(∇f(θ_t), θ_t)`.

    Kingma & Ba (2015), Algorithm 1, "while θ_t not converged". Each step is an `adamx.step`, which also gets `value`,
    `grad` and `value_fn` as `optax.lbfgs` and others need them, with the gradient of a complex parameter conjugated to
    point uphill. Without batches, callback and progress all steps are one `lax.while_loop`; minimize then works under
    jit and vmap, and repeated calls compile once if they are jitted as a whole. Otherwise a Python loop calls that
    loop for one step after another, compiled once for all batches of one shape. The results are bitwise identical (on
    jax 0.6 sometimes not in the last bit of arrays of up to three elements).

    A gradient that is not finite goes to `tx`, so that `skip_nonfinite` can skip it; it does not count as converged. A
    transformation that does not move in each step, such as `optax.MultiSteps`, needs atol = 0. The parameters and the
    state of the last step are kept until the new ones are known to be finite, which takes twice the memory.

    Args:
        fun: the objective, from params, or params and a batch, to a real scalar; with has_aux to a pair of that and a
            tree of arrays.
        params: θ_0, a tree of floating or complex arrays.
        tx: any transformation.
        max_steps: the largest number of steps.
        atol: in units of the parameters; the run has converged when a step changes no element by as much. 0 or None:
            it never has.
        batches: one for each step, arrays or trees of them; no more are drawn than needed.
        has_aux: whether fun returns something besides.
        callback: called with a `MinimizeStep` after each step; True stops the run.
        progress: shows a progress bar with the objective; takes tqdm, which the extra `adamx[progress]` brings.

    Returns:
        A `MinimizeResult`; parameters and state in the types that came and that `tx.init` made.

    Raises:
        ValueError: max_steps below 1; atol negative, infinite or NaN.
        TypeError: an argument of another type; a parameter that is no floating or complex array, with its path; an
            objective that is no real scalar; batches, callback or progress while JAX traces.
        ImportError: progress without tqdm.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> rate = optax.exponential_decay(0.5, transition_steps=50, decay_rate=0.5)
        >>> found = adamx.minimize(
        ...     lambda x: (x - 3.0) ** 2, jnp.array(0.0), adamx.adam(rate), max_steps=1000, atol=1e-6
        ... )
        >>> bool(abs(found.params - 3.0) < 1e-3), found.stopped.name, found.steps == len(found.history)
        (True, 'CONVERGED', True)
    """
    max_steps = hyperparameters.integer("max_steps", max_steps, 1)
    atol = hyperparameters.nonnegative("atol", 0.0 if atol is None else atol)
    has_aux = hyperparameters.flag("has_aux", has_aux)
    progress = hyperparameters.flag("progress", progress)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must take a MinimizeStep, got {callback!r} of type {type(callback).__name__}")
    feed = itertools.repeat(()) if batches is None else arguments(batches)
    params = map_with_path(strongly_typed, params)
    run = jax.jit(runner(checked(fun, has_aux), tx, atol), static_argnames="length")
    start = At(params, tx.init(params), jnp.zeros([], jnp.int32), jnp.full([], GOING_ON, jnp.int32))

    if batches is None and callback is None and not progress:
        return _result(*run(start, max_steps, length=max_steps))
    if isinstance(jnp.zeros([]), Tracer) or any(isinstance(x, Tracer) for x in jax.tree.leaves(start)):
        raise TypeError("minimize takes batches, callback and progress only outside jit and vmap, where Python loops")
    return one_by_one(run, start, max_steps, feed, callback, progress)


def _result(at: At, value: jax.Array, aux: Any, history: jax.Array) -> MinimizeResult:
    """What the loop that runs to its end has found; numbers are read where there are some now."""
    stopped = jnp.where(at.stopped == GOING_ON, jnp.int32(StopReason.MAX_STEPS), at.stopped)
    if isinstance(at.steps, Tracer):
        if not jax.config.jax_debug_nans:  # pyright: ignore[reportAttributeAccessIssue]
            history = jnp.where(jnp.arange(len(history)) < at.steps, history, jnp.nan)
        return MinimizeResult(at.params, at.state, at.steps, stopped, history, aux)
    steps = int(at.steps)
    return MinimizeResult(at.params, at.state, steps, StopReason(int(stopped)), np.asarray(history)[:steps], aux)
