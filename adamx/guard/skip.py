"""Steps with NaN or infinite gradients, skipped and counted."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamx import hyperparameters
from adamx.guard.attempt import Attempt, by_leaf, by_step, no_updates
from adamx.trees import Tree, map_leaves, path_name

SCOPES = ("step", "leaf")


class SkipNonfiniteState(NamedTuple):
    """What `skip_nonfinite` keeps.

    Attributes:
        inner: the state of the transformation that it guards.
        skipped: how many steps were skipped, an int32 scalar; with scope "leaf" a tree of them, one a leaf.
        in_a_row: how many of them since the last one that was taken, likewise.
        too_many: whether there ever were more than `max_consecutive` in a row, a boolean scalar.
    """

    inner: optax.OptState
    skipped: Tree
    in_a_row: Tree
    too_many: jax.Array


class Guarded(optax.GradientTransformationExtraArgs):
    """A transformation whose steps are taken only with finite gradients.

    Attributes:
        init: of the state.
        update: of the state, with updates of 0 where nothing moves.
        inner: the transformation that is guarded.
        attempt: the same for a step of another kind, `adamx.step`.
    """

    inner: optax.GradientTransformation
    attempt: Callable[..., tuple[Tree, SkipNonfiniteState]]

    def __new__(
        cls,
        init: Callable[..., Any],
        update: Callable[..., Any],
        inner: optax.GradientTransformation,
        attempt: Callable[..., Any],
    ) -> "Guarded":
        """The pair that optax knows, with what `adamx.step` needs to know."""
        self = super().__new__(cls, init, update)
        self.inner, self.attempt = inner, attempt
        return self


def skip_nonfinite(
    tx: optax.GradientTransformation, scope: str = "step", max_consecutive: int | None = None
) -> optax.GradientTransformationExtraArgs:
    """Leaves everything as it is in a step whose gradients are not finite.

    `θ_t, s_t = θ_{t-1}, s_{t-1}` where a gradient has a NaN or infinite element, else what `tx` makes of it: weights,
    moments and counts move as if the faulty step had not been. The device decides, in a branch of the compiled step;
    through `adamx.step` nothing is copied for it. Put it outermost, around master weights or stochastic rounding too.

    Args:
        tx: any transformation; with scope "leaf" one that steps each leaf by itself, as the family of Adam does.
        scope: "step": one faulty element stops the whole step; "leaf": it stops its leaf, the others move, and what
            they have in common, the count, moves if any of them does.
        max_consecutive: how many skipped steps in a row are fine; beyond, `too_many` of the state becomes true and
            `adamx.check_skips(state)` raises. None: any number. A faulty step is never let through.

    Returns:
        A transformation with `SkipNonfiniteState` around the state of `tx`.

    Raises:
        ValueError: another scope; max_consecutive below 0.
        TypeError: max_consecutive not an integer; with scope "leaf", at update, a transformation in which one leaf's
            update depends on another's gradient.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.skip_nonfinite(adamx.adam(0.1))
        >>> params = jnp.ones(2)
        >>> params, state = adamx.step(tx, jnp.array([1.0, jnp.nan]), tx.init(params), params)
        >>> params, int(state.skipped), int(state.inner[0].count)
        (Array([1., 1.], dtype=float32), 1, 0)
    """
    if scope not in SCOPES:
        raise ValueError(f'scope must be "step" or "leaf", got {scope!r}')
    limit = None if max_consecutive is None else hyperparameters.integer("max_consecutive", max_consecutive, 0)
    inner = optax.with_extra_args_support(tx)
    by_scope = by_step if scope == "step" else by_leaf

    def init(params: optax.Params) -> SkipNonfiniteState:
        def none_yet(_: Any = None) -> jax.Array:  # each its own array: a donated state must not hold one twice
            return jnp.zeros([], jnp.int32)

        skipped, in_a_row = (none_yet() if scope == "step" else jax.tree.map(none_yet, params) for _ in range(2))
        return SkipNonfiniteState(tx.init(params), skipped, in_a_row, jnp.zeros([], bool))

    def attempt(one: Attempt, gradients: Tree, state: Any, params: Tree) -> tuple[Tree, SkipNonfiniteState]:
        if not isinstance(state, SkipNonfiniteState):
            raise TypeError(f"expected the state that init returned, SkipNonfiniteState, got {type(state).__name__}")
        clean, moved, after = by_scope(inner, one, gradients, state.inner, params)
        skipped, in_a_row = map_leaves(_count, 2, clean, state.skipped, state.in_a_row)
        too_many = state.too_many
        if limit is not None:
            too_many = too_many | jnp.any(jnp.stack([n > limit for n in jax.tree.leaves(in_a_row)] or [too_many]))
        return moved, SkipNonfiniteState(after, skipped, in_a_row, too_many)

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, SkipNonfiniteState]:
        def take(tx: Any, gradients: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
            return tx.update(gradients, state, params, **extra)

        return attempt(Attempt(take, no_updates, extra_args), updates, state, params)

    return Guarded(init, update, inner, attempt)


def _count(clean: jax.Array, skipped: jax.Array, in_a_row: jax.Array) -> tuple[jax.Array, jax.Array]:
    return skipped + ~clean, jnp.where(clean, 0, in_a_row + 1)


def check_skips(state: optax.OptState) -> None:
    """Raises if a guard has skipped more steps in a row than it was told to bear. Waits for the device.

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
    nodes = jax.tree.leaves(state, is_leaf=_is_guard)
    guards = [node for node in nodes if _is_guard(node)]
    if not guards:
        raise TypeError("there is no SkipNonfiniteState in this state: wrap the optimizer in adamx.skip_nonfinite")
    for guard in guards:
        if bool(guard.too_many):
            found = jax.tree_util.tree_flatten_with_path(guard.skipped)[0]
            skipped = ", ".join(f"{int(n)}{f' at {path_name(path)}' if path else ''}" for path, n in found if n)
            raise FloatingPointError(
                f"more than max_consecutive steps in a row had a gradient that was not finite, of all: {skipped}"
            )


def _is_guard(node: Any) -> bool:
    return isinstance(node, SkipNonfiniteState)
