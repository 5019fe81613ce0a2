"""What Adam keeps between steps, and the check that it is what came back."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamx.core.composition import wrong_state
from adamx.storage.codec import shapes
from adamx.trees import check_fits, check_leaves


class MomentsState(NamedTuple):
    """What Adam keeps between steps, under optax's names and in its layout.

    Attributes:
        count: the number of steps taken, an int32 scalar that saturates at 2^31-1.
        mu: m, a tree of the parameters' structure and shapes.
        nu: v, likewise, real and non-negative.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    mu: optax.Updates
    nu: optax.Updates


class DitheredMomentsState(NamedTuple):
    """`MomentsState` where moments are rounded by dither.

    Attributes:
        count: as there.
        mu: as there; a quantized leaf is `adamx.storage.Quantized`.
        nu: likewise.
        step: the number of steps taken, a uint32 scalar that wraps, so that thresholds move on when count cannot.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    mu: optax.Updates
    nu: optax.Updates
    step: jax.Array


def increment(count: jax.Array) -> jax.Array:
    """Line 5: `t + 1`, which stays at the largest integer once it is there."""
    largest = jnp.iinfo(count.dtype).max
    return jnp.where(count < largest, count + 1, largest).astype(count.dtype)


def check_state(kind: type[Any], state: Any, gradients: Any) -> Any:
    """The state itself, or a TypeError that says what is not as init made it, or which gradient is no number."""
    if not isinstance(state, kind):
        raise wrong_state(kind.__name__, state)
    check_leaves("gradient", gradients)
    for name in ("count", "step"):
        value = getattr(state, name, np.int32(0))
        dtype, shape = getattr(value, "dtype", np.dtype(type(value))), np.shape(value)
        if shape or not jnp.issubdtype(dtype, jnp.integer):
            raise wrong_state(kind.__name__, state, f" whose {name} is {dtype}{list(shape)}")
    try:
        mu, nu = shapes(state.mu), shapes(state.nu)
        check_leaves("mu", mu)
        check_fits(nu, mu, "nu", "mu")
    except (TypeError, ValueError) as error:
        raise wrong_state(kind.__name__, state, f" in which {error}") from None
    return state
