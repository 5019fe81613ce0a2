"""Transformations one behind the other: `chain`, whose step is one pass, and `join`, which keeps one state."""

from collections.abc import Sequence
from typing import Any

import optax

from adamx.core.errors import transformation, wrong_state
from adamx.core.hidden import called
from adamx.core.step import UNSAID, Pass, Update, Weights, about, composed_update
from adamx.trees import Tree


def chain(*args: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """`optax.chain` that keeps the one pass of `adamx.step`.

    Updates and state are those of `optax.chain`. Through `adamx.step` the optimizer in the chain makes one pass over
    memory. Any transformation of optax may come before it, and runs as in `update`; `clip_by_global_norm` of adamx
    costs only the norm. After it `add_decayed_weights`, `scale_by_lr`, `decay_weights` and `scale_by_path` of adamx
    are part of the pass. With another transformation after it, or without an optimizer of adamx, the step is `update`
    and `apply_updates`: `adamx.explain` tells.

    Args:
        *args: transformations of adamx or optax, in the order in which they change the gradients.

    Returns:
        A transformation whose state is the tuple of theirs.

    Raises:
        TypeError: at update, a state that is not the tuple that init returned.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adam(0.1))
        >>> params = jnp.ones(2)
        >>> params, state = adamx.step(tx, jnp.array([3.0, 4.0]), tx.init(params), params)
        >>> state[1][0].mu.round(2)
        Array([0.06, 0.08], dtype=float32)
    """
    stages, chained = args, optax.chain(*map(transformation, args))

    def checked(state: Any) -> tuple[Any, ...]:
        if not isinstance(state, tuple) or hasattr(state, "_fields") or len(state) != len(stages):
            raise wrong_state(f"a tuple of {len(stages)} states", state)
        return state

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        return chained.update(updates, checked(state), params, **extra_args)

    core, why = _optimizer_in(stages)
    if core is None:
        return optax.GradientTransformationExtraArgs(chained.init, Update(update, why=why))

    def step(gradients: Tree, state: Any, weights: Weights, told: Pass) -> tuple[Weights, Any]:
        states = list(checked(state))
        for i in range(core):
            gradients, told, states[i] = _before(stages[i], gradients, states[i], weights, told)
        tails = []
        for i in range(core + 1, len(stages)):
            tail, states[i] = about(stages[i]).tail(states[i], weights)
            tails.append(tail)
        inside = told.replace(tails=(*tails, *told.tails))
        weights, states[core] = about(stages[core]).step(gradients, states[core], weights, inside)
        return weights, tuple(states)

    return optax.GradientTransformationExtraArgs(chained.init, Update(update, step, why=why))


def _optimizer_in(stages: Sequence[optax.GradientTransformation]) -> tuple[int | None, str]:
    """The number of the stage whose step is that of the chain, and why that is not one pass; None: there is no step."""
    stepping = [i for i, stage in enumerate(stages) if about(stage).step is not None]
    if not stepping:
        told = [about(stage).why for stage in stages]
        return None, next((why for why in told if why and why != UNSAID), UNSAID)
    if len(stepping) > 1:
        return None, "two stages of the chain are optimizers"
    core = stepping[0]
    for i in range(core + 1, len(stages)):
        if about(stages[i]).tail is None:
            return None, f"{called(stages[i].update)}, number {i + 1} in the chain, needs the updates of the optimizer"
    return core, about(stages[core]).why


def _before(
    stage: optax.GradientTransformation, gradients: Tree, state: Any, weights: Weights, told: Pass
) -> tuple[Tree, Pass, Any]:
    """Gradients and pass behind a stage that stands before the optimizer."""
    factor = about(stage).factor
    if factor is not None:
        number, state = factor(gradients, state, told.factor)
        return gradients, told.replace(factor=number), state
    updates, state = composed_update(stage, gradients, state, weights, told)
    return updates, told.replace(factor=None), state


def join(
    first: optax.GradientTransformation, *rest: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """Chains a stage with stages that have no state, and keeps only the state of the first.

    So `scale_by_adam`, three stages, has the state of `optax.scale_by_adam`, one.

    Args:
        first: any transformation.
        *rest: transformations whose state is `optax.EmptyState()`.

    Returns:
        A transformation with the state of `first`.

    Raises:
        TypeError: at init, a stage of `rest` has a state: use `optax.chain`.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.join(adamx.scale_by_moments(), adamx.bias_correction())
        >>> type(tx.init(jnp.zeros(1))).__name__
        'MomentsState'
    """
    head, tail = transformation(first), [transformation(tx) for tx in rest]

    def init(params: optax.Params) -> optax.OptState:
        for i, tx in enumerate(tail, start=1):
            state = tx.init(params)
            if state != optax.EmptyState():
                raise TypeError(f"join: stage {i} has a state, {type(state).__name__}: use optax.chain instead")
        return head.init(params)

    def update(
        updates: Any, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[Any, optax.OptState]:
        updates, state = head.update(updates, state, params, **extra_args)
        for tx in tail:
            updates, _ = tx.update(updates, optax.EmptyState(), params, **extra_args)
        return updates, state

    return optax.GradientTransformationExtraArgs(init, update)
