"""What a fused optimizer is made of: its hyperparameters, and the transformation that they describe."""

import dataclasses
from typing import Any

import jax
import optax

from adamx.core.decay import Mask
from adamx.core.rate import ScalarOrSchedule
from adamx.numerics import Scalar
from adamx.optimizers.adam import adam
from adamx.optimizers.adamw import adamw

NUMBERS = ("learning_rate", "b1", "b2", "eps", "eps_root", "weight_decay")


@dataclasses.dataclass(frozen=True, eq=False)
class Recipe:
    """The arguments of `adamw`; without `decoupled` those of `adam`, which has no weight decay."""

    learning_rate: ScalarOrSchedule
    b1: Scalar
    b2: Scalar
    eps: Scalar
    eps_root: Scalar
    mu_dtype: Any
    weight_decay: ScalarOrSchedule
    mask: Mask | None
    nesterov: bool
    nu_dtype: Any
    precise: bool
    decoupled: bool

    @property
    def stages(self) -> int:
        """How many states its own has in a row: of the moments, of weight decay if there is any, of the rate."""
        return 3 if self.decoupled else 2

    def build(self) -> optax.GradientTransformationExtraArgs:
        """The composed transformation."""
        first = (self.learning_rate, self.b1, self.b2, self.eps, self.eps_root, self.mu_dtype)
        last: dict[str, Any] = {"nesterov": self.nesterov, "nu_dtype": self.nu_dtype, "precise": self.precise}
        return adamw(*first, self.weight_decay, self.mask, **last) if self.decoupled else adam(*first, **last)

    def arrays(self) -> dict[str, jax.Array]:
        """The hyperparameters that are arrays and may be traced."""
        return {name: value for name in NUMBERS if isinstance(value := getattr(self, name), jax.Array)}

    def replace(self, **changes: Any) -> "Recipe":
        """The same with other arguments."""
        return dataclasses.replace(self, **changes)
