"""What the tests of the family beyond optax share: a stream that no coordinate of which is like another, and a loop."""

import jax
import numpy as np
import optax
import pytest


@pytest.fixture
def noise():
    """A function from (seed, sizes) to 200 gradients, float64 numbers that float32 has: noise around a mean.

    The sizes of coordinates differ by up to 10^sizes either way; the first one is always 0.
    """

    def gradients(seed: int, sizes: int = 3) -> np.ndarray:
        random = np.random.default_rng(seed)
        g = (random.standard_normal((200, 24)) + random.standard_normal(24) / 2) * 10.0 ** random.integers(
            -sizes, sizes, 24
        )
        g[:, 0] = 0.0
        return g.astype(np.float32).astype(np.float64)

    return gradients


@pytest.fixture
def run():
    """A function from (transformation, gradients, parameters) to all updates and parameters of a compiled loop."""

    def loop(tx: optax.GradientTransformation, gradients: jax.Array, theta: jax.Array) -> tuple[jax.Array, jax.Array]:
        def step(carry, g):
            theta, state = carry
            updates, state = tx.update(g, state, theta)
            theta = optax.apply_updates(theta, updates)
            return (theta, state), (updates, theta)

        return jax.jit(lambda c, g: jax.lax.scan(step, c, g)[1])((theta, tx.init(theta)), gradients)

    return loop
