"""What wrappers of half-precision parameters share: how they begin, and how they step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx.core.leaf import to_float32
from adamx.core.step import Pass, Update, Weights, about, composed_step, take_step
from adamx.storage.codec import is_half
from adamx.trees import Tree


def start_in_float32(params: Tree) -> Tree:
    """The parameters that the wrapped transformation is initialized with; a `jax.ShapeDtypeStruct` stays one."""

    def start(p: Any) -> Any:
        if not is_half(getattr(p, "dtype", float)):
            return p
        if isinstance(p, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(p.shape, jnp.float32, sharding=p.sharding)
        return to_float32(p)

    return jax.tree.map(start, params)


def with_step(
    init: optax.TransformInitFn,
    update: optax.TransformUpdateExtraArgsFn,
    inner: optax.GradientTransformation,
    checked: Callable[[Tree, Any, Tree], Weights],
    kept: Callable[[optax.OptState, Weights], Any],
) -> optax.GradientTransformationExtraArgs:
    """A wrapper of half-precision parameters whose step is that of what it wraps, with something behind the weights.

    Args:
        init: of the wrapper.
        update: of the wrapper.
        inner: what it wraps.
        checked: from gradients, state and parameters to weights with what is behind them, or an error.
        kept: from the state of `inner` and the weights after the step to the state of the wrapper.
    """
    composed = optax.GradientTransformationExtraArgs(init, update)

    def step(gradients: Tree, state: Any, weights: Weights, told: Pass) -> tuple[Weights, Any]:
        if weights.behind:  # inside another wrapper like this all weights are float32
            return composed_step(composed, gradients, state, weights, told)
        given = checked(gradients, state, weights.params)
        moved, after = take_step(inner, gradients, state.inner, given, told)
        return Weights(moved.params, norms=moved.norms), kept(after, moved)

    return composed._replace(update=Update(update, step, why=about(inner).why))
