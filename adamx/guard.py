"""Steps with NaN or infinite gradients, skipped and counted."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamx import hyperparameters, shards
from adamx.core.guarded import Verdict, agreed, guarded
from adamx.finite import all_finite
from adamx.numerics import Scalar
from adamx.trees import Tree
from adamx.variables import bare


class SkipNonfiniteState(NamedTuple):
    """The state of `skip_nonfinite`.

    Attributes:
        inner: the state of the transformation that it guards.
        skipped: how many steps were skipped, an int32 scalar.
        in_a_row: how many of them since the last one that was taken, an int32 scalar.
        too_many: whether there ever were more than `max_consecutive` in a row, a boolean scalar.
    """

    inner: optax.OptState
    skipped: jax.Array
    in_a_row: jax.Array
    too_many: jax.Array


def skip_nonfinite(
    tx: optax.GradientTransformation, max_consecutive: int | None = None, **removed: Any
) -> optax.GradientTransformationExtraArgs:
    """Skips a step if a gradient is NaN or infinite: parameters, moments and counts stay as they are.

    `θ_t, s_t = θ_{t-1}, s_{t-1}` if a gradient has a NaN or infinite element, else the step of `tx`. The rest of the
    run is that without the faulty step. The device decides, in a branch of the compiled step;
    through `adamx.step` nothing is copied for it. Put it outermost, around master weights or stochastic rounding too.
    Inside `jax.shard_map` one faulty shard stops the step on all devices that share the state.

    Args:
        tx: any transformation.
        max_consecutive: how many skipped steps in a row are fine; beyond, `too_many` of the state becomes true and
            `adamx.check_skips(state)` raises. None: any number. A faulty step is never let through.
        **removed: `scope`, an argument of adamx 0.1, raises a TypeError that says what to use instead.

    Returns:
        A transformation with `SkipNonfiniteState` around the state of `tx`.

    Raises:
        ValueError: max_consecutive below 0.
        TypeError: max_consecutive not an integer; an argument of another name.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.skip_nonfinite(adamx.adam(0.1))
        >>> params = jnp.ones(2)
        >>> params, state = adamx.step(tx, jnp.array([1.0, jnp.nan]), tx.init(params), params)
        >>> params, int(state.skipped), int(state.inner[0].count)
        (Array([1., 1.], dtype=float32), 1, 0)
    """
    _check_removed({"scope": max_consecutive} if isinstance(max_consecutive, str) else removed)
    limit = None if max_consecutive is None else hyperparameters.integer("max_consecutive", max_consecutive, 0)

    def start(inner: optax.OptState) -> SkipNonfiniteState:
        skipped, in_a_row = (jnp.zeros([], jnp.int32) for _ in range(2))  # two arrays: a donated state holds none twice
        return SkipNonfiniteState(inner, skipped, in_a_row, jnp.zeros([], bool))

    def judge(gradients: Tree, state: SkipNonfiniteState, factor: Scalar | None, extra: dict[str, Any]) -> Verdict:
        clean = agreed(all_finite(gradients), shards.varying(state.skipped))
        in_a_row = jnp.where(clean, 0, state.in_a_row + 1)
        too_many = state.too_many if limit is None else state.too_many | (in_a_row > limit)
        return Verdict(clean, state._replace(in_a_row=in_a_row, too_many=too_many))

    return guarded(tx, SkipNonfiniteState, start, judge)


def _check_removed(removed: dict[str, Any]) -> None:
    for name in removed:
        if name == "scope":
            raise TypeError(
                "skip_nonfinite has no argument scope any more: it skips whole steps. To guard groups of parameters "
                "apart from each other, give each group its own guard: optax.partition({label: "
                "adamx.skip_nonfinite(tx), ...}, labels)"
            )
        raise TypeError(f"skip_nonfinite() has no argument {name!r}: it takes tx, max_consecutive")


def check_skips(state: optax.OptState) -> None:
    """Raises if `skip_nonfinite` has skipped more than `max_consecutive` steps in a row. Waits for the device.

    Args:
        state: of an optimizer, with a `SkipNonfiniteState` anywhere in it.

    Raises:
        FloatingPointError: more than `max_consecutive` steps in a row had a gradient that was not finite.
        TypeError: there is no guard in the state.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.skip_nonfinite(adamx.adam(0.1), max_consecutive=0)
        >>> _, state = tx.update(jnp.array([jnp.inf]), tx.init(jnp.ones(1)))
        >>> adamx.check_skips(state)
        Traceback (most recent call last):
        FloatingPointError: more than max_consecutive steps in a row had a gradient that was not finite, of all: 1
    """
    guards = [node for node in jax.tree.leaves(bare(state), is_leaf=_is_guard) if _is_guard(node)]
    if not guards:
        raise TypeError("there is no SkipNonfiniteState in this state: wrap the optimizer in adamx.skip_nonfinite")
    for guard in guards:
        if bool(guard.too_many):
            raise FloatingPointError(
                "more than max_consecutive steps in a row had a gradient that was not finite, "
                f"of all: {int(guard.skipped)}"
            )


def _is_guard(node: Any) -> bool:
    return isinstance(node, SkipNonfiniteState)
