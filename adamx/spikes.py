"""Steps whose gradient norm or loss is far above that of the steps before, skipped and counted."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamx import hyperparameters, shards
from adamx.core.guarded import Verdict, agreed, guarded
from adamx.hyperparameters import names_hints
from adamx.norm import global_norm
from adamx.numerics import Scalar
from adamx.trees import Tree

FLOOR = 1e-6
"""The least standard deviation, over the mean: differences of this size are rounding."""


class SkipSpikesState(NamedTuple):
    """The state of `skip_spikes`.

    Attributes:
        inner: the state of the transformation that it guards.
        norms: of the gradients of the last `window` steps, float32, the newest last; 0 where there is none yet.
        losses: the losses, in the same way.
        count: how many norms there are, at most `window`, an int32 scalar.
        loss_count: how many losses there are.
        skipped: how many steps were skipped, an int32 scalar.
    """

    inner: optax.OptState
    norms: jax.Array
    losses: jax.Array
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    loss_count: jax.Array
    skipped: jax.Array


@names_hints
def skip_spikes(
    tx: optax.GradientTransformation, threshold: Scalar = 6.0, window: int = 128
) -> optax.GradientTransformationExtraArgs:
    """Skips a step if its gradient norm, or its loss, is far above that of the last steps.

    `θ_t, s_t = θ_{t-1}, s_{t-1}` where `x_t > mean + threshold · std`, x the norm of all gradients or the loss, with
    the mean and the standard deviation (over n - 1) of the last `window` steps. The device decides, in a branch of the
    compiled step; through `adamx.step` nothing is copied for it. A step reads the gradients once more, for the norm;
    `clip_by_global_norm` inside takes the same norm. Inside `jax.shard_map` norms are those of all shards.

    The rule is that of OLMo-core (`SkipStepOptimizer`), Levanter (`skip_bad_steps`) and MaxText
    (`skip_step_on_spikes`): 6 standard deviations of 128 steps. The window holds the steps before this one. Nothing is
    skipped before it is half full. A skipped value enters the window too, so that the guard gets used to a new level
    of the norm. Three things differ here. A norm or loss that is not finite is always skipped and never enters; in the
    others one NaN makes mean and deviation NaN, and no step is taken until it has left the window. The loss may be
    left out. The deviation is at least 1e-6 of the mean, so that rounding is no spike; Levanter has a minimum of 1e-6
    in any unit, OLMo-core and MaxText none.

    Args:
        tx: any transformation; what clips gradients goes inside.
        threshold: how many standard deviations above the mean are fine, >= 0.
        window: of how many steps mean and standard deviation are, >= 2.

    Returns:
        A transformation with `SkipSpikesState` around the state of `tx`. It takes the loss as the extra argument
        `value`: `adamx.step(tx, gradients, state, params, value=loss)`. A step without it is judged by the norm alone.

    Raises:
        ValueError: threshold negative, infinite or NaN; window below 2; at update, a value that is no scalar.
        TypeError: arguments that are no numbers; at update, a state that is not this transformation's.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.skip_spikes(adamx.adam(0.1), window=4)
        >>> params = jnp.ones(2)
        >>> state = tx.init(params)
        >>> for size in (1.0, 1.1, 1000.0, 1.0):
        ...     params, state = adamx.step(tx, jnp.array([size, 0.0]), state, params)
        >>> int(state.skipped), int(state.inner[0].count), params.round(2)
        (1, 3, Array([0.7, 1. ], dtype=float32))
    """
    limit = hyperparameters.nonnegative("threshold", threshold)
    length = hyperparameters.integer("window", window, 2)

    def start(inner: optax.OptState) -> SkipSpikesState:
        norms, losses = (jnp.zeros([length], jnp.float32) for _ in range(2))  # a donated state holds none twice
        count, loss_count, skipped = (jnp.zeros([], jnp.int32) for _ in range(3))
        return SkipSpikesState(inner, norms, losses, count, loss_count, skipped)

    def judge(gradients: Tree, state: SkipSpikesState, factor: Scalar | None, extra: dict[str, Any]) -> Verdict:
        if state.norms.shape != (length,):
            raise ValueError(f"skip_spikes has a window of {length} steps, the state one of {state.norms.shape[-1]}")
        leaves = [x for x in jax.tree.leaves(gradients) if jnp.issubdtype(getattr(x, "dtype", type(x)), jnp.inexact)]
        own, loss = shards.varying(state.skipped), _loss(extra.get("value"))
        norm, clean, kept = _judged(own, state[1:-1], leaves, factor, loss, limit)
        alone = not any(shards.axes_of(own, x) for x in leaves)  # what a clip inside takes is the norm of these
        return Verdict(clean, SkipSpikesState(state.inner, *kept, skipped=state.skipped), norm if alone else None)

    return guarded(tx, SkipSpikesState, start, judge)


def _loss(value: Any) -> Any:
    """The loss as a float32 scalar, None if it was not given."""
    if value is None:
        return None
    told = "value, the loss of a step, goes to adamx.step(tx, gradients, state, params, value=loss) or update"
    try:
        loss = hyperparameters.scalar("value", value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error}. {told}") from error
    return jnp.asarray(loss).astype(jnp.float32)


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _judged(
    own: frozenset[str], kept: tuple[jax.Array, ...], leaves: list[Any], factor: Any, loss: Any, limit: Any
) -> tuple[jax.Array, jax.Array, tuple[jax.Array, ...]]:
    """The norm, 0 if it is not finite, whether the step is taken, and the windows with it.

    One compiled function: `jax_debug_nans` sees its answer alone.
    """
    norms, losses, count, loss_count = kept
    norm = global_norm(leaves, own)
    seen = norm if factor is None else norm * jnp.asarray(factor, norm.dtype)
    norms, count, clean = _seen(norms, count, seen.astype(jnp.float32), limit)
    if loss is not None:
        loss = shards.mean(loss, shards.axes_of(own, loss))  # of the shards of a batch
        losses, loss_count, usual = _seen(losses, loss_count, loss, limit)
        clean &= usual
    return jnp.where(jnp.isfinite(norm), norm, 0), agreed(clean, own), (norms, losses, count, loss_count)


def _seen(ring: jax.Array, count: jax.Array, x: jax.Array, limit: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The window and its count with a number in it, and whether the number is finite and not far above the others.

    Everything is divided by the largest number in the window first, so that no square is infinite or 0.
    """
    window = ring.size
    held = jnp.arange(window, dtype=jnp.int32) >= window - count
    largest = jnp.max(jnp.abs(ring))  # empty places are 0
    scale = jnp.maximum(largest, jnp.finfo(jnp.float32).smallest_normal)
    scaled, n = ring / scale, count.astype(jnp.float32)
    mean = jnp.sum(scaled) / jnp.maximum(n, 1)
    variance = jnp.sum(jnp.where(held, (scaled - mean) ** 2, 0)) / jnp.maximum(n - 1, 1)
    deviation = jnp.maximum(jnp.sqrt(variance), FLOOR * jnp.abs(mean))
    usual = x / scale - mean <= jnp.asarray(limit, jnp.float32) * deviation
    finite = jnp.isfinite(x)
    ring = jnp.where(finite, jnp.concatenate([ring[1:], x[None]]), ring)
    enough = count >= max(2, window // 2)
    return ring, jnp.minimum(count + jnp.int32(finite), window), finite & (usual | ~enough)
