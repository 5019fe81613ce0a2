"""How long a step of Adam can be, in units of the learning rate: what was claimed, what is true, what reaches it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import adamx

B1, B2, EPS = 0.9, 0.999, 1e-30
PAPER = (1 - B1) / np.sqrt(1 - B2)
"""Kingma & Ba (2015), section 2.1."""
FLOOR = np.sqrt((1 - B1) / (1 + B1))
"""The root mean square of m̂/√v̂ for uncorrelated gradients with mean 0, all of one size."""


def bounds(steps: int) -> np.ndarray:
    """`√(Σ a_i²/b_i)` for t = 1 to `steps`: the longest possible step in units of α."""
    past = np.arange(steps, dtype=float)
    a, b = (1 - B1) * B1**past, (1 - B2) * B2**past
    return np.sqrt(np.cumsum(a**2 / b) * np.cumsum(b)) / np.cumsum(a)


def worst_stream(steps: int) -> float:
    """The last step, in units of α, for the gradients that reach the bound."""
    direction = adamx.scale_by_adam(B1, B2, EPS)
    gradients = jnp.asarray((B1 / B2) ** np.arange(steps)[::-1], jnp.float32)

    def step(state: Any, g: jax.Array) -> tuple[Any, jax.Array]:
        u, state = direction.update(g, state)
        return state, u

    return float(jax.jit(lambda: jax.lax.scan(step, direction.init(gradients[0]), gradients)[1][-1])())
