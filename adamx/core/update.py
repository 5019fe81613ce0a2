"""A step by `update` and `apply_updates`, and an `update` that carries what `adamx.step` must know besides."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx.storage.codec import HALF_BITS
from adamx.trees import Tree, check_arrays, widened


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


def composed_step(
    tx: optax.GradientTransformation, gradients: Tree, state: optax.OptState, params: Tree, extra: dict[str, Any]
) -> tuple[Tree, optax.OptState]:
    """Parameters and state after `update` and `apply_updates`, updates in the dtype of the parameters or wider."""
    check_arrays("parameter", params)
    update = optax.with_extra_args_support(tx).update
    updates, state = update(widened(gradients, params), state, params, **extra)
    return _apply_updates(params, updates), state


def _apply_updates(params: Tree, updates: Tree) -> Tree:
    """`optax.apply_updates`, which has no sum for float8 parameters: theirs is taken in float32 and rounded."""

    def summable(p: Any) -> Any:
        narrow = jnp.issubdtype(getattr(p, "dtype", int), jnp.floating) and jnp.finfo(p.dtype).bits < HALF_BITS
        return p.astype(jnp.float32) if narrow else p

    def rounded(p: Any, moved: Any) -> Any:
        return moved.astype(p.dtype) if hasattr(p, "dtype") else moved

    with jax.numpy_dtype_promotion("standard"):  # a sum of a half-precision parameter and a float32 update is meant
        moved = optax.apply_updates(jax.tree.map(summable, params), updates)
    return jax.tree.map(rounded, params, moved)
