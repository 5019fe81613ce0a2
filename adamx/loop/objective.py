"""The objective and the parameters of `minimize`, checked."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from adamx.trees import Tree, path_name

Objective = Callable[..., Any]
"""From parameters (and a batch) to a real scalar and anything besides."""


def strongly_typed(path: Any, p: Any) -> jax.Array:
    """A parameter as an array whose dtype no update changes."""
    if isinstance(p, float | complex) or (hasattr(p, "dtype") and jnp.issubdtype(p.dtype, jnp.inexact)):
        return jnp.asarray(p, jnp.result_type(p))
    came = f"dtype {p.dtype}" if hasattr(p, "dtype") else f"{p!r} of type {type(p).__name__}"
    raise TypeError(
        f"the parameter at {path_name(path)} must be an array of real or complex floating numbers, got {came}: "
        "let fun close over what is not to be moved"
    )


def checked(fun: Callable[..., Any], has_aux: bool) -> Objective:
    """The objective as a function that always returns a pair; what fun returns is checked when it is traced."""
    if not callable(fun):
        raise TypeError(f"fun must be a function of the parameters, got {fun!r} of type {type(fun).__name__}")

    def objective(params: Tree, *batch: Any) -> tuple[jax.Array, Any]:
        returned: Any = fun(params, *batch)
        if has_aux and not (isinstance(returned, tuple) and len(returned) == 2):
            raise TypeError(f"with has_aux=True fun must return a pair, objective and aux, got {_kind(returned)}")
        value, aux = returned if has_aux else (returned, None)
        if isinstance(value, tuple | list | dict | None):
            raise TypeError(f"fun must return a real scalar, got {_kind(value)}: a pair needs has_aux=True")
        value = jnp.asarray(value)
        if value.shape or not jnp.issubdtype(value.dtype, jnp.floating):
            raise TypeError(f"fun must return a real floating scalar, got {value.dtype} of shape {value.shape}")
        return value, aux

    return objective


def _kind(x: Any) -> str:
    return f"a tuple of {len(x)}" if isinstance(x, tuple) else type(x).__name__
