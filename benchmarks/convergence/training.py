"""Training, many runs at a time: one scan over the steps, one lane for each pair of a learning rate and a seed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

Rate = Any
"""What lanes differ in: a learning rate, traced, or a schedule made from one; or several hyperparameters."""
Build = Callable[[Rate], optax.GradientTransformation]
BATCH = 64
Lanes = Callable[[Rate, jax.Array], jax.Array]


class Problem(NamedTuple):
    """What is minimized.

    Attributes:
        init: from a key to float32 parameters.
        size: of the training data.
        batch: from indices below `size` to a minibatch.
        loss: of parameters on a minibatch, with a key for noise (dropout, sampling).
        cost: of parameters, over the training data: the loss without minibatches, with the same noise every time.
    """

    init: Callable[[jax.Array], Any]
    size: int
    batch: Callable[[jax.Array], Any]
    loss: Callable[[Any, Any, jax.Array], jax.Array]
    cost: Callable[[Any], jax.Array]


def trainer(problem: Problem, build: Build, steps: int, every: int) -> Lanes:
    """Compiled: from learning rates and seeds, a pair for each lane, to training costs, `(lanes, steps/every)`.

    A seed names the start, the batches and the noise: whatever is trained from it meets the same.
    """
    points = steps // every

    def one(rate: Rate, seed: jax.Array) -> jax.Array:
        tx = build(rate)

        def step(carry: Any, drawn: Any) -> tuple[Any, None]:
            params, state = carry
            chosen, noise = drawn
            gradients = jax.grad(problem.loss)(params, problem.batch(chosen), noise)
            updates, state = tx.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), None

        def some(carry: Any, drawn: Any) -> tuple[Any, jax.Array]:
            carry = jax.lax.scan(step, carry, drawn)[0]
            return carry, problem.cost(carry[0])

        start, batches, noise = jax.random.split(jax.random.key(seed), 3)
        params = problem.init(start)
        chosen = jax.random.randint(batches, (points, every, BATCH), 0, problem.size)
        drawn = chosen, jax.random.split(noise, (points, every))
        return jax.lax.scan(some, (params, tx.init(params)), drawn)[1]

    return jax.jit(jax.vmap(one))


def costs(lanes: Lanes, rates: Any, seeds: Any) -> np.ndarray:
    """What the lanes give for a tree of arrays and for seeds, which broadcast; in float64, ∞ where it is no number."""
    leaves, structure = jax.tree.flatten(rates)
    *leaves, seeds = np.broadcast_arrays(*(np.asarray(leaf, np.float32) for leaf in leaves), np.asarray(seeds))
    flat = structure.unflatten([jnp.asarray(leaf.ravel()) for leaf in leaves])
    found = np.asarray(lanes(flat, jnp.asarray(seeds.ravel())), np.float64)
    return np.where(np.isfinite(found), found, np.inf).reshape(*seeds.shape, -1)


def end(curves: np.ndarray) -> np.ndarray:
    """Where curves end: the mean of the last tenth of their points."""
    return curves[..., -max(1, curves.shape[-1] // 10) :].mean(axis=-1)
