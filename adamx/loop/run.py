"""The loop of Algorithm 1 on the device: steps, and the criteria that end them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamx import hyperparameters, numerics
from adamx.finite import all_finite
from adamx.kernels.step import step
from adamx.loop.objective import Objective
from adamx.loop.outcome import StopReason
from adamx.numerics import Scalar
from adamx.trees import Tree

GOING_ON = 0
"""In place of a `StopReason`."""


class At(NamedTuple):
    """Where a run is. `stopped` is 0 as long as it goes on."""

    params: Tree
    state: optax.OptState
    steps: jax.Array
    stopped: jax.Array


def runner(objective: Objective, tx: optax.GradientTransformation, atol: Scalar) -> Callable[..., Any]:
    """A function that takes steps up to a number of them; gives where it ends, the last objective, aux, and history."""
    gradient = jax.value_and_grad(objective, has_aux=True)

    def run(at: At, limit: Any, *batch: Any, length: int) -> tuple[At, jax.Array, Any, jax.Array]:
        first = at.steps

        def goes_on(carry: Any) -> jax.Array:
            return (carry[0].stopped == GOING_ON) & (carry[0].steps < limit)

        def body(carry: Any) -> Any:
            at, _, _, history = carry
            (value, aux), gradients = gradient(at.params, *batch)
            uphill = jax.tree.map(jnp.conj, gradients)
            after = _attempt(tx, at, value, uphill, lambda p: objective(p, *batch)[0], atol)
            return after, value, aux, history.at[at.steps - first].set(value)

        value, aux = jax.tree.map(_zeros, jax.eval_shape(objective, at.params, *batch))
        # Two elements at least: for one XLA:CPU drops the write and contracts the step around it otherwise.
        history = jnp.zeros(max(length, 2), value.dtype)
        *found, history = jax.lax.while_loop(goes_on, body, (at, value, aux, history))
        return *found, history[:length]

    return run


def _attempt(
    tx: optax.GradientTransformation,
    at: At,
    value: jax.Array,
    gradients: Tree,
    value_fn: Callable[[Tree], jax.Array],
    atol: Scalar,
) -> At:
    """One step, taken if all that it leads to is finite."""
    new = step(tx, gradients, at.state, at.params, value=value, grad=gradients, value_fn=value_fn)
    taken = jnp.isfinite(value) & all_finite(new[0])

    def chosen(x: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(taken, x, old)

    params, state = jax.tree.map(chosen, new, (at.params, at.state))
    stopped = jnp.where(taken, GOING_ON, StopReason.NONFINITE)
    if hyperparameters.known(atol) != 0:
        still = (_largest_change(at.params, new[0]) < atol) & all_finite(gradients)
        stopped = jnp.where(taken & still, StopReason.CONVERGED, stopped)
    return At(params, state, at.steps + jnp.int32(taken), stopped.astype(jnp.int32))


def _zeros(like: jax.ShapeDtypeStruct) -> jax.Array:
    return jnp.zeros(like.shape, like.dtype)


def _largest_change(before: Tree, after: Tree) -> jax.Array:
    """max|θ_t - θ_{t-1}| over all elements, in float32 or wider."""

    def change(p: jax.Array, q: jax.Array) -> jax.Array:
        wide = numerics.compute_dtype(p.dtype)
        return jnp.max(jnp.abs(q.astype(wide) - p.astype(wide)), initial=0)

    changes = jax.tree.leaves(jax.tree.map(change, before, after))
    return (
        jnp.max(jnp.stack([c.astype(jnp.result_type(float)) for c in changes]), initial=0) if changes else jnp.zeros([])
    )
