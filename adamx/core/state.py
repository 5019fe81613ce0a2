"""What Adam keeps between steps, and the check that it is what came back."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamx.core.errors import wrong_state
from adamx.storage.codec import shapes
from adamx.trees import check_fits, check_leaves, fits


class MomentsState(NamedTuple):
    """The state of Adam, with optax's names and layout, however moments are stored.

    Attributes:
        count: the number of steps taken, an int32 scalar that saturates at 2^31-1. It is the clock of the dither too,
            whose thresholds stand still from there on.
        mu: m, a tree of the parameters' structure and shapes; a quantized leaf is `adamx.storage.Quantized`.
        nu: v, a tree of the same structure and shapes, real and non-negative.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    mu: optax.Updates
    nu: optax.Updates


def increment(count: jax.Array) -> jax.Array:
    """Line 5: `t + 1`, which stays at the largest integer once it is there."""
    largest = jnp.iinfo(count.dtype).max
    return jnp.where(count < largest, count + 1, largest).astype(count.dtype)


def check_state(state: Any, gradients: Any) -> MomentsState:
    """The state itself, or a TypeError that says what is not as init made it, or which gradient is no number."""
    if not isinstance(state, MomentsState):
        raise wrong_state("MomentsState", state)
    check_leaves("gradient", gradients)
    dtype, shape = getattr(state.count, "dtype", np.dtype(type(state.count))), np.shape(state.count)
    if shape or not jnp.issubdtype(dtype, jnp.integer):
        raise wrong_state("MomentsState", state, f" whose count is {dtype}{list(shape)}")
    if fits(state.nu, state.mu):
        return state
    try:
        mu, nu = shapes(state.mu), shapes(state.nu)
        check_leaves("mu", mu)
        check_fits(nu, mu, "nu", "mu")
    except (TypeError, ValueError) as error:
        raise wrong_state("MomentsState", state, f" in which {error}") from None
    return state
