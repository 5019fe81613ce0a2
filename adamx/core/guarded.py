"""A guard: the device takes a step or leaves everything as it is, in a branch of the compiled step.

What guards share: the branch, for `update` and for a step in one pass, and the count of skipped steps. A guard itself
is a judge of gradients and a state of its own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamx import shards
from adamx.core.branch import branch, no_step, no_updates
from adamx.core.errors import transformation, wrong_state
from adamx.core.step import Pass, Update, Weights, about, take_step
from adamx.core.work import by_xla
from adamx.norm import known_norm
from adamx.numerics import Scalar
from adamx.trees import Tree

Branch = Callable[[jax.Array, Callable[[Any], tuple[Tree, Any]], Callable[[Tree], Tree], Any], tuple[Tree, Any]]
"""From a condition, a step, what stands in the place of what it moves, and the state to what moves and the state."""


class Verdict(NamedTuple):
    """What a judge says of a step.

    Attributes:
        clean: whether the step is taken, a boolean scalar, the same on all shards.
        state: of the guard, with its own fields after this step.
        norm: of the gradients, if the judge has taken it: a clip inside takes no other. None: it has not.
    """

    clean: jax.Array
    state: Any
    norm: jax.Array | None = None


Judge = Callable[[Tree, Any, Scalar | None, dict[str, Any]], Verdict]
"""Judges gradients by them, the guard's state, what gradients are multiplied by (None: nothing) and the extra
arguments."""


def guarded(
    tx: optax.GradientTransformation, kind: type, start: Callable[[optax.OptState], Any], judge: Judge
) -> optax.GradientTransformationExtraArgs:
    """A transformation whose steps are taken where a judge says so, and are counted where not.

    Args:
        tx: any transformation.
        kind: the type of the guard's state, a NamedTuple with the fields `inner` and `skipped`, an int32 scalar.
        start: from the first state of `tx` to that of the guard.
        judge: decides, and advances the guard's own fields. `inner` and `skipped` are advanced here.

    Returns:
        A transformation with the guard's state around that of `tx`.
    """
    inner = transformation(tx)

    def init(params: optax.Params) -> Any:
        return start(tx.init(params))

    def attempt(
        take: Callable[[Any], tuple[Tree, Any]],
        keep: Callable[[Tree], Tree],
        gradients: Tree,
        state: Any,
        told: Pass,
    ) -> tuple[Tree, Any]:
        if not isinstance(state, kind):
            raise wrong_state(kind.__name__, state)
        before: Any = state
        clean, judged, norm = judge(gradients, before, told.factor, told.extra)
        with known_norm(gradients, norm):
            moved, after = (told.branch or _branch)(clean, take, keep, before.inner)
        return moved, judged._replace(inner=after, skipped=before.skipped + jnp.int32(~clean))

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, Any]:
        def take(state: Any) -> tuple[Tree, Any]:
            return inner.update(updates, state, params, **extra_args)

        return attempt(take, no_updates, updates, state, Pass(by_xla, extra_args))

    def step(gradients: Tree, state: Any, weights: Weights, told: Pass) -> tuple[Weights, Any]:
        def take(state: Any) -> tuple[Weights, Any]:
            return take_step(inner, gradients, state, weights, told)

        return attempt(take, lambda _: no_step(weights, told), gradients, state, told)

    return optax.GradientTransformationExtraArgs(init, Update(update, step, why=about(inner).why))


def _branch(clean: jax.Array, take: Any, keep: Any, state: Any) -> tuple[Tree, Any]:
    return branch(clean, lambda: take(state), lambda shapes: (keep(shapes[0]), state))


def is_guard(node: Any) -> bool:
    """Whether a node of a state is that of a guard: it counts the steps that it skipped."""
    return hasattr(node, "inner") and hasattr(node, "skipped")


def agreed(clean: jax.Array, own: frozenset[str]) -> jax.Array:
    """Whether all shards are clean: inside `jax.shard_map` one shard stops the step of the others.

    Args:
        clean: whether the shard at hand is.
        own: what the counter of the state varies over, see `adamx.shards`.
    """
    axes = shards.axes_of(own, clean)
    return shards.total(jnp.int32(~clean), axes) == 0 if axes else clean
