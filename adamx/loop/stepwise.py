"""A run of `minimize` in Python, a step at a time: over batches, with a callback, with a progress bar."""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamx.loop.outcome import MinimizeResult, MinimizeStep, StopReason
from adamx.loop.run import GOING_ON, At


def arguments(batches: Iterable[Any]) -> Iterable[tuple[Any]]:
    """The arguments of fun behind params: a batch after the other."""
    what = f"got {type(batches).__name__}: one batch for all steps is itertools.repeat(batch)"
    if isinstance(batches, Mapping | str | bytes):
        raise TypeError(f"batches must be an iterable of batches, {what}")
    try:
        return zip(batches)
    except TypeError:
        raise TypeError(f"batches must be an iterable of batches, {what}") from None


def one_by_one(
    run: Callable[..., Any],
    at: At,
    max_steps: int,
    feed: Iterable[tuple[Any, ...]],
    callback: Callable[[MinimizeStep], bool | None] | None,
    progress: bool,
) -> MinimizeResult:
    """The loop in Python: a run of one step for each batch."""
    values: list[jax.Array] = []
    aux, stopped = None, GOING_ON
    with _bar(max_steps, progress) as bar:
        for batch in itertools.islice(feed, max_steps):
            at, value, aux, _ = run(at, len(values) + 1, *batch, length=1)
            stopped = int(at.stopped)
            if stopped == StopReason.NONFINITE:
                break
            values.append(value)
            if bar is not None:
                bar.set_postfix(objective=f"{float(value):.4g}", refresh=False)
                bar.update()
            asked = callback is not None and _answer(callback(MinimizeStep(len(values), value, *at[:2], aux)))
            stopped = stopped or (StopReason.CALLBACK if asked else GOING_ON)
            if stopped:
                break
    if not stopped:
        stopped = StopReason.MAX_STEPS if len(values) == max_steps else StopReason.NO_MORE_BATCHES
    history = np.array(jax.device_get(values), values[0].dtype if values else jnp.result_type(float))
    return MinimizeResult(at.params, at.state, len(values), StopReason(stopped), history, aux)


def _answer(answer: Any) -> bool:
    if answer is None:
        return False
    if np.shape(answer) or not jnp.issubdtype(jnp.result_type(answer), bool):
        raise TypeError(f"callback must return True to stop, False or None, got {answer!r}")
    return bool(answer)


def _bar(max_steps: int, progress: bool) -> Any:
    """A context with a progress bar in it, or with None."""
    if not progress:
        return contextlib.nullcontext()
    try:
        from tqdm import tqdm  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install 'adamx[progress]'") from error
    return tqdm(total=max_steps, unit="step")
