"""Online convex optimization: a stream of losses, a step after each, a projection onto a box, and regret.

The regret after T losses is `Σ f_t(x_t) - min_x Σ f_t(x)`, what was paid above the best fixed point in hindsight.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamx


class Player(NamedTuple):
    """One way to play.

    Attributes:
        build: from the learning rate, β1 and β2 of this step to a transformation; all have one layout of the state.
        decay: λ of `β1,t = β1 λ^(t-1)`.
        power: of `α_t = α / t^power`.
    """

    build: Callable[..., optax.GradientTransformation]
    decay: float = 1.0
    power: float = 0.5


def play(player: Player, losses: Any, alpha: Any, b1: float, b2: float, x: jax.Array) -> jax.Array:
    """What `loss(x_t)` and its gradient give, step by step: the losses paid.

    Args:
        player: who plays.
        losses: `(loss, stream)`, a function of the point and an element of the stream, and the stream, step by step in
            blocks, `(blocks, steps, ...)`.
        alpha: α.
        b1: β1.
        b2: β2.
        x: the first point, in the box [-1, 1].

    Returns:
        The mean loss of each block, `(blocks,)`.
    """
    loss, stream = losses

    def step(carry: Any, element: Any) -> tuple[Any, jax.Array]:
        x, state, t = carry
        paid, gradient = jax.value_and_grad(loss)(x, element)
        past = t.astype(jnp.float32)  # t itself would stop at 2^24 as a float
        tx = player.build(alpha * (past + 1) ** -player.power, b1=b1 * player.decay**past, b2=b2)
        updates, state = tx.update(gradient, state, x)
        return (jnp.clip(optax.apply_updates(x, updates), -1, 1), state, t + 1), paid

    def block(carry: Any, elements: Any) -> tuple[Any, jax.Array]:
        carry, paid = jax.lax.scan(step, carry, elements)
        return carry, paid.mean()

    start = x, player.build(alpha, b1=b1, b2=b2).init(x), jnp.int32(0)
    return jax.lax.scan(block, start, stream)[1]


PLAYERS = {
    "Adam": Player(adamx.adam),
    "Adam, β1 decays": Player(adamx.adam, decay=0.9999),
    "AMSGrad": Player(adamx.amsgrad),
}


def slope(steps: np.ndarray, regret: np.ndarray) -> float:
    """The exponent p of a regret that grows like T^p, by a line through the logarithms; NaN for one below 0."""
    if (regret <= 0).any():
        return float("nan")
    return float(np.polyfit(np.log(steps), np.log(regret), 1)[0])
