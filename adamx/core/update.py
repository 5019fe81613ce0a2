"""An `update` that is called like a function and carries what `adamx.step` must know of its transformation."""

import dataclasses
from collections.abc import Callable
from typing import Any

import optax


@dataclasses.dataclass(frozen=True, eq=False)
class Update:
    """The `update` of a transformation, with what else is known of the transformation as attributes.

    An optimizer stays optax's plain pair of functions: `jax.tree.map`, `copy.deepcopy`, `_replace`, `eqx.filter_jit`
    and cloudpickle take the pair as they take every other one, and what it knows goes along. Like a function it is
    hashed by identity, and a copy of it is itself.

    Attributes:
        function: the update.
    """

    function: Callable[..., tuple[Any, optax.OptState]]

    def __call__(
        self, updates: Any, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[Any, optax.OptState]:
        """Calls the function."""
        return self.function(updates, state, params, **extra_args)

    def __copy__(self) -> "Update":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Update":
        return self
