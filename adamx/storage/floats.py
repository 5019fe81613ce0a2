"""Moments held as plain floating arrays."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from adamx import hyperparameters, numerics
from adamx.numerics import Scalar


class Float(NamedTuple):
    """Stores a moment in a floating dtype, rounded to nearest; None: float32, or float64 for 64-bit parameters.

    Attributes:
        dtype: a real floating dtype; a complex moment takes the complex dtype of the same width.
    """

    dtype: jnp.dtype | None = None

    def zeros(self, like: Any, dtype: DTypeLike, *, real: bool, where: str = "a leaf") -> jax.Array:
        """The moment of a parameter before the first step, with the parameter's shape and placement.

        Raises:
            TypeError: a complex moment asked for in a half-precision dtype.
        """
        wide = jnp.dtype(jax.dtypes.canonicalize_dtype(numerics.compute_dtype(dtype)))
        if real or not jnp.issubdtype(wide, jnp.complexfloating):
            return jnp.zeros_like(like, dtype=self.dtype or numerics.real_dtype(wide))
        if self.dtype is None:
            return jnp.zeros_like(like, dtype=wide)
        if jnp.finfo(self.dtype).bits < 32:
            raise TypeError(f"the complex moment at {where} cannot be stored as {self.dtype}: leave mu_dtype as None")
        return jnp.zeros_like(like, dtype=numerics.compute_dtype(self.dtype, jnp.complex64))

    def decode(self, stored: jax.Array, dtype: DTypeLike) -> jax.Array:
        """The moment in compute precision."""
        return jnp.asarray(stored).astype(dtype)

    def encode(self, moment: jax.Array, dtype: DTypeLike) -> jax.Array:
        """The moment as it is kept, in the dtype in which it was kept before."""
        return moment.astype(dtype)


def moment_codec(name: str, dtype: Any, decay_name: str, decay: Scalar) -> Float:
    """The codec for a storage dtype.

    Raises:
        TypeError: not a floating dtype.
        ValueError: a dtype without the range for the average, or in which rounding to nearest would undo what a step
            adds to it. With a traced decay rate the second cannot be told, and rounding is to nearest.
    """
    checked = hyperparameters.floating_dtype(name, dtype)
    if checked is None or jnp.finfo(checked).bits >= 32:
        return Float(checked)
    if name == "nu_dtype":
        raise ValueError(f"nu_dtype={checked} cannot hold squares: use float32 or float64")
    if jnp.finfo(checked).bits < 16:
        raise ValueError(
            f"{name}={checked} has neither the range nor the steps for an average: use bfloat16 or float32"
        )
    half_ulp, kept = float(jnp.finfo(checked).eps) / 2, hyperparameters.known(decay)
    if kept is not None and 1 - kept < half_ulp:
        raise ValueError(
            f"{name}={checked} rounds to {half_ulp:.2g} of a value, more than the {1 - kept:.2g} that a step changes "
            f"at {decay_name}={kept:.6g}: the average would stall. Use float32"
        )
    return Float(checked)
