"""Names of adamx 0.1 that go with the next release."""

import inspect
import warnings
from typing import Any

import optax

from adamx.core.step import Pass, Update, Weights
from adamx.core.work import by_xla
from adamx.optimizers.adam import adam
from adamx.optimizers.adamw import adamw
from adamx.trees import Tree


def fused_adam(*args: Any, backend: str = "auto", **kwargs: Any) -> optax.GradientTransformationExtraArgs:
    """Deprecated: `adam`, whose step is the same; `backend` is an argument of `adamx.step`."""
    return _fused("adam", adam, backend, *args, **kwargs)


def fused_adamw(*args: Any, backend: str = "auto", **kwargs: Any) -> optax.GradientTransformationExtraArgs:
    """Deprecated: `adamw`, whose step is the same; `backend` is an argument of `adamx.step`."""
    return _fused("adamw", adamw, backend, *args, **kwargs)


def _fused(name: str, make: Any, backend: str, *args: Any, **kwargs: Any) -> Any:
    message = f"adamx.fused_{name} is adamx.{name} since 0.2: adamx.step takes its step in one pass"
    warnings.warn(message, DeprecationWarning, stacklevel=3)
    if backend not in ("auto", "xla"):
        raise ValueError(f'backend must be "auto" or "xla", got {backend!r}')
    tx = make(*args, **kwargs)
    inner = tx.update.step
    if backend == "auto":
        return tx

    def step(gradients: Tree, state: Any, weights: Weights, told: Pass) -> tuple[Weights, Any]:
        return inner(gradients, state, weights, told.replace(execute=by_xla))

    return tx._replace(update=Update(tx.update.function, step))


fused_adam.__signature__ = inspect.signature(adam)  # pyright: ignore
fused_adamw.__signature__ = inspect.signature(adamw)  # pyright: ignore
