"""`join`: stages under one state."""

from typing import Any

import optax


def join(
    first: optax.GradientTransformation, *rest: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """Runs stateless stages behind the first and keeps the first one's state alone.

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
    head, tail = optax.with_extra_args_support(first), [optax.with_extra_args_support(tx) for tx in rest]

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


def no_state(params: optax.Params) -> optax.OptState:
    """The init of a stage that keeps nothing."""
    return optax.EmptyState()
