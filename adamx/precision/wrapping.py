"""What `adamx.step` must know of a wrapper for half-precision parameters: what it wraps."""

import dataclasses
from collections.abc import Callable

import optax

from adamx.core.update import Update


@dataclasses.dataclass(frozen=True, eq=False)
class Wrapping(Update):
    """The update of a transformation around another one.

    Attributes:
        function: of the wrapper.
        around: makes the same wrapper around any transformation.
        inner: the wrapped transformation.
        seed: of dithered parameters; None where the state keeps their remainder.
    """

    around: Callable[[optax.GradientTransformation], optax.GradientTransformationExtraArgs]
    inner: optax.GradientTransformation
    seed: int | None = None
