"""What a hyperparameter may be: checked when a transformation is built, with the argument's name and value."""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike

from adamx.numerics import Scalar

P = ParamSpec("P")
T = TypeVar("T")

_OTHER_NAMES = {
    "lr": "learning_rate",
    "alpha": "learning_rate",
    "step_size": "learning_rate",
    "beta1": "b1",
    "beta_1": "b1",
    "beta2": "b2",
    "beta_2": "b2",
    "betas": "b1= and b2",
    "epsilon": "eps",
    "wd": "weight_decay",
    "decay": "weight_decay",
    "weight_decay_mask": "mask",
}

DECAYING = {
    "adam": "adamx.adamw",
    "adamax": "adamx.adamaxw",
    "adam_atan2": "adamx.adamw_atan2",
}
"""The optimizer with weight decay for each that has none and a twin that has some."""

_ONE_PROGRAM = "XLA compiles the step of all leaves into one program: leave it out and jit the step"
_INSTEAD = {
    "amsgrad": "use the optimizer adamx.amsgrad",
    "maximize": "to climb put optax.scale(-1.0) in front: optax.chain(optax.scale(-1.0), tx)",
    "foreach": _ONE_PROGRAM,
    "capturable": _ONE_PROGRAM,
    "jit_compile": _ONE_PROGRAM,
    "fused": "adamx.step(tx, gradients, state, params) takes the fused step",
    "differentiable": "updates have derivatives: leave it out",
    "params": "the parameters go to tx.init(params)",
    "clipvalue": "use optax.chain(optax.clip(value), tx)",
    "clipnorm": "for one norm of all leaves use optax.chain(optax.clip_by_global_norm(norm), tx), for each leaf apart "
    "optax.clip_by_block_rms(norm / sqrt(size))",
    "global_clipnorm": "use optax.chain(optax.clip_by_global_norm(norm), tx)",
    "use_ema": "average the parameters by adamx.with_ema(tx, momentum)",
    "ema_momentum": "average the parameters by adamx.with_ema(tx, momentum)",
    "gradient_accumulation_steps": "use adamx.accumulate(tx, every=steps)",
    "loss_scale_factor": "divide in front: optax.chain(optax.scale(1 / factor), tx)",
    "decoupled_weight_decay": "adamx.adamw, adamx.nadamw and adamx.adamaxw decouple the weight decay: leave it out",
    "momentum_decay": "β1 does not move with the step here: adamx.inject_hyperparams(adamx.nadam)(..., b1=schedule)",
}
"""Arguments of torch and Keras that are something else here, and what to use."""


def _instead(name: str, given: str) -> str:
    """What to use for an argument that an optimizer does not have; "" if nothing is known about it."""
    if _OTHER_NAMES.get(given, given) == "weight_decay":
        between = "adamx.add_decayed_weights(weight_decay) in optax.chain, before adamx.scale_by_lr(learning_rate)"
        return f"it has no weight decay, use {DECAYING.get(name, between)}"
    return _INSTEAD.get(given, "")


def names_hints(build: Callable[P, T]) -> Callable[P, T]:
    """Decorates a public constructor: an argument named as elsewhere raises a TypeError with the name used here."""
    known = inspect.signature(build).parameters
    name = getattr(build, "__name__", "adamx")

    @functools.wraps(build)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        for given in kwargs:
            if given not in known:
                here = _OTHER_NAMES.get(given, "")
                if here.split("=")[0] in known:
                    raise TypeError(f"{name}() has no argument {given!r}: it is called {here}= here")
                takes = f"it takes {', '.join(known)}"
                raise TypeError(f"{name}() has no argument {given!r}: {_instead(name, given) or takes}")
        return build(*args, **kwargs)

    return checked


def _is_half(dtype: DTypeLike) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32


def scalar(name: str, value: Any) -> Scalar:
    """A real number, as a Python float, or a scalar array (traced or not) as it is.

    Raises:
        TypeError: not a real number.
        ValueError: an array with one or more dimensions.
    """
    if not isinstance(value, int | float | np.generic | np.ndarray | jax.Array):
        raise TypeError(f"{name} must be a real number, got {value!r} of type {type(value).__name__}")
    dtype = getattr(value, "dtype", np.dtype(type(value)))
    if not (jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating)):
        raise TypeError(f"{name} must be a real number, got {value!r} of dtype {dtype}")
    if np.ndim(value) > 0:
        raise ValueError(f"{name} must be a scalar, got an array of shape {np.shape(value)}")
    try:
        return value if isinstance(value, jax.Array) else float(value)
    except OverflowError:
        return math.inf if int(value) > 0 else -math.inf


def known(value: Scalar) -> float | None:
    """The number behind a hyperparameter where it can be read now: not while it is traced or lives elsewhere."""
    if not isinstance(value, jax.Array):
        return value
    if isinstance(value, Tracer) or not value.is_fully_addressable:
        return None
    return float(value)


def at_least(name: str, value: Any, lowest: float) -> Scalar:
    """A finite number of at least `lowest`, else TypeError or ValueError; a traced one passes unread."""
    checked = scalar(name, value)
    number = known(checked)
    if number is not None and not (lowest <= number < math.inf):
        raise ValueError(f"{name} must be a finite number of at least {lowest}, got {number}")
    return checked


def nonnegative(name: str, value: Any) -> Scalar:
    """A finite number of at least 0, else TypeError or ValueError; a traced one passes unread."""
    return at_least(name, value, 0)


def decay_rate(name: str, value: Any, *, precise: bool = False) -> Scalar:
    """A number in [0, 1), of at least single precision; with `precise` one that is known now, on the host.

    Raises:
        TypeError: not a number (a tuple is told to come as b1 and b2), or traced with `precise`.
        ValueError: outside [0, 1), NaN, an array with dimensions, or of half precision, in which 0.999 is 1.
    """
    if isinstance(value, tuple | list):
        raise TypeError(f"{name} must be a number, got {value!r}: pass b1= and b2= as two arguments")
    if callable(value):
        raise TypeError(f"{name} must be a number, got {value!r}: for a schedule use adamx.inject_hyperparams")
    checked = scalar(name, value)
    dtype = jnp.result_type(value)
    if _is_half(dtype):
        raise ValueError(
            f"{name} has dtype {dtype}, in which decay rates near 1 round to 1 (0.999 is "
            f"{float(np.asarray(0.999, dtype))} there). With optax.inject_hyperparams pass "
            "hyperparam_dtype=jnp.float32, or use adamx.inject_hyperparams; otherwise pass a Python float"
        )
    number = known(checked)
    if number is not None and not (0 <= number < 1):
        raise ValueError(f"{name} must be in [0, 1), got {number}")
    if precise and not isinstance(checked, float):
        raise TypeError(f"precise=True needs {name} as a Python float, got an array of dtype {dtype}: it is rounded")
    return checked


def check_below_one(name: str, value: Scalar, dtype: DTypeLike) -> None:
    """Raises a ValueError where a decay rate below 1 rounds to 1 in the dtype that it multiplies."""
    number = known(value)
    if number is not None and float(np.asarray(number, dtype)) == 1.0:
        raise ValueError(f"{name}={number} is 1 in {dtype}: the average would never change. Use precise=True")


def integer(name: str, value: Any, lowest: int) -> int:
    """An integer of at least `lowest`, else TypeError or ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}")
    if value < lowest:
        raise ValueError(f"{name} must be at least {lowest}, got {value}")
    return int(value)


def flag(name: str, value: Any) -> bool:
    """True or False, else TypeError."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r} of type {type(value).__name__}")
    return bool(value)


def floating_dtype(name: str, value: Any) -> jnp.dtype | None:
    """A real floating dtype that JAX can hold now, or None.

    Raises:
        TypeError: not a real floating dtype.
        ValueError: float64 where x64 is off.
    """
    if value is None:
        return None
    try:
        dtype = jnp.dtype(value)
    except TypeError as error:
        raise TypeError(f"{name} must be a floating dtype or None, got {value!r}") from error
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{name} must be a real floating dtype or None, got {dtype}")
    if dtype == jnp.float64 and not jax.config.read("jax_enable_x64"):
        raise ValueError(f"{name} is float64, but JAX holds float32 here: set jax_enable_x64 first")
    return dtype
