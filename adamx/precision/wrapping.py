"""What `adamx.step` must know of a wrapper for half-precision parameters: what it wraps."""

from collections.abc import Callable
from typing import Any

import optax


class Wrapping(optax.GradientTransformationExtraArgs):
    """A transformation around another one.

    Attributes:
        init: of both.
        update: of both.
        around: makes the same around any transformation.
        inner: the wrapped transformation.
        seed: of dithered parameters; None where the state keeps their remainder.
    """

    around: Callable[[optax.GradientTransformation], "Wrapping"]
    inner: optax.GradientTransformation
    seed: int | None

    def __new__(
        cls,
        init: Callable[..., Any],
        update: Callable[..., Any],
        around: Callable[[optax.GradientTransformation], "Wrapping"],
        inner: optax.GradientTransformation,
        seed: int | None = None,
    ) -> "Wrapping":
        """The pair that optax knows, with what `adamx.step` needs to know."""
        self = super().__new__(cls, init, update)
        self.around, self.inner, self.seed = around, inner, seed
        return self
