"""Steps with NaN or infinite gradients, skipped and counted."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamx import hyperparameters, shards
from adamx.core.composition import wrong_state
from adamx.core.step import Pass, Update, Weights, about, landed, take_step
from adamx.finite import all_finite
from adamx.trees import Tree
from adamx.variables import bare

Take = Callable[[optax.OptState], tuple[Tree, optax.OptState]]
"""From the state to what moves (updates, or weights) and the state."""

Keep = Callable[[Tree], Tree]
"""What stands in place of what moves, from its shapes."""

Branch = Callable[[jax.Array, Take, Keep, optax.OptState], tuple[Tree, optax.OptState]]
"""Takes the step where a condition is true, else keeps what there is."""


class SkipNonfiniteState(NamedTuple):
    """What `skip_nonfinite` keeps.

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
    """Leaves everything as it is in a step whose gradients are not finite.

    `θ_t, s_t = θ_{t-1}, s_{t-1}` where a gradient has a NaN or infinite element, else what `tx` makes of it: weights,
    moments and counts move as if the faulty step had not been. The device decides, in a branch of the compiled step;
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
    inner = optax.with_extra_args_support(tx)

    def init(params: optax.Params) -> SkipNonfiniteState:
        skipped, in_a_row = (jnp.zeros([], jnp.int32) for _ in range(2))  # two arrays: a donated state holds none twice
        return SkipNonfiniteState(tx.init(params), skipped, in_a_row, jnp.zeros([], bool))

    def attempt(take: Take, keep: Keep, gradients: Tree, state: Any, branch: Branch) -> tuple[Tree, SkipNonfiniteState]:
        if not isinstance(state, SkipNonfiniteState):
            raise wrong_state("SkipNonfiniteState", state)
        clean = all_finite(gradients)
        axes = shards.axes_of(shards.varying(state.skipped), clean)
        clean = shards.total(jnp.int32(~clean), axes) == 0 if axes else clean  # one shard stops the others
        moved, after = branch(clean, take, keep, state.inner)
        in_a_row = jnp.where(clean, 0, state.in_a_row + 1)
        too_many = state.too_many if limit is None else state.too_many | (in_a_row > limit)
        return moved, SkipNonfiniteState(after, state.skipped + jnp.int32(~clean), in_a_row, too_many)

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, SkipNonfiniteState]:
        def take(state: Any) -> tuple[Tree, Any]:
            return inner.update(updates, state, params, **extra_args)

        return attempt(take, _no_updates, updates, state, _branch)

    def step(gradients: Tree, state: Any, weights: Weights, told: Pass) -> tuple[Weights, SkipNonfiniteState]:
        def take(state: Any) -> tuple[Weights, Any]:
            return take_step(inner, gradients, state, weights, told)

        def keep(_: Tree) -> Weights:
            decays = any(any(tail.decays) for tail in told.tails)  # what stands behind a skipped update still acts
            return landed(weights, _no_updates(weights.wide()), told) if decays else weights

        return attempt(take, keep, gradients, state, told.branch or _branch)

    return optax.GradientTransformationExtraArgs(init, Update(update, step, why=about(inner).why))


def _check_removed(removed: dict[str, Any]) -> None:
    for name in removed:
        if name == "scope":
            raise TypeError(
                "skip_nonfinite has no argument scope any more: it skips whole steps. To guard groups of parameters "
                "apart from each other, give each group its own guard: optax.partition({label: "
                "adamx.skip_nonfinite(tx), ...}, labels)"
            )
        raise TypeError(f"skip_nonfinite() has no argument {name!r}: it takes tx, max_consecutive")


def _branch(clean: jax.Array, take: Take, keep: Keep, state: optax.OptState) -> tuple[Tree, optax.OptState]:
    """The step where all is clean, else nothing, in the same types."""

    def taken() -> tuple[Tree, optax.OptState]:
        return take(state)

    program, shapes = jax.make_jaxpr(taken, return_shape=True)()
    treedef = jax.tree.structure(shapes)

    def as_taken(x: Any, kind: Any) -> jax.Array:
        return shards.vary_as(jnp.asarray(x).astype(kind.dtype), kind)

    def kept() -> tuple[Tree, optax.OptState]:
        leaves = treedef.flatten_up_to((keep(shapes[0]), state))
        return treedef.unflatten(map(as_taken, leaves, program.out_avals))

    return jax.lax.cond(clean, taken, kept)


def _no_updates(shapes: Tree) -> Tree:
    return jax.tree.map(jnp.zeros_like, shapes)


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
