"""From the argument `mu_dtype` or `nu_dtype` to a codec."""

import inspect
from typing import Any, cast

import jax
import jax.numpy as jnp

from adamx import hyperparameters
from adamx.numerics import Scalar
from adamx.storage.codec import HALF_BITS, Codec
from adamx.storage.floats import Float
from adamx.storage.int8 import Int8

TRACKS = 0.05
"""How far from a constant gradient an average may stop, relative to it, and still be said to track it."""

METHODS = ("zeros", "decode", "encode", "largest")


def moment_codec(name: str, value: Any, decay: Scalar) -> Codec:
    """The codec for a storage dtype, or the codec that came instead of one.

    A bare half-precision dtype rounds to nearest where that tracks. An average that goes (1-β) of the way in each step
    stops where this is less than half a unit in the last place: 4 % short of a constant in bfloat16 at β = 0.9, while
    at 0.999 it hardly moves. Where it would stop more than 5 % short, where β is an array, traced or not, and in
    float8, it is dithered.

    Raises:
        TypeError: neither a floating dtype nor a codec.
    """
    if inspect.isclass(value) and all(hasattr(value, method) for method in METHODS):
        raise TypeError(f"{name} must be a dtype or a codec, got the class {value.__name__}: pass {value.__name__}()")
    if isinstance(value, Float):
        checked = Float(_dtype(name, value.dtype), value.stochastic, value.seed)
    elif all(hasattr(value, method) for method in METHODS):
        if isinstance(value, Int8):
            value.check(name)
        return cast(Codec, value)
    else:
        checked = Float(_dtype(name, value))
    if checked.stochastic is None:
        checked = checked._replace(stochastic=_nearest_stalls(checked.dtype, decay))
    return checked


def _dtype(name: str, value: Any) -> Any:
    """Of a moment that may be complex, m, the dtype may be so too: optax takes it."""
    return hyperparameters.floating_dtype(name, value, complex_too=name == "mu_dtype")


def _nearest_stalls(dtype: Any, decay: Scalar) -> bool:
    if dtype is None or jnp.finfo(dtype).bits > HALF_BITS:
        return False
    half_ulp = float(jnp.finfo(dtype).eps) / 2
    # An array may be traced in the next step: read now, it could give the state other fields than then.
    unknown = isinstance(decay, jax.Array)
    return unknown or jnp.finfo(dtype).bits < HALF_BITS or half_ulp > TRACKS * (1 - decay)


def moment_codecs(mu_dtype: Any, nu_dtype: Any, b1: Scalar, b2: Scalar) -> tuple[Codec, Codec]:
    """Both codecs. m is dithered as well as v where v is and nothing is said against it.

    Alone, a bfloat16 m rounds to nearest, in the layout of optax's state, and stops up to 4 % short of a constant
    gradient; where the state counts steps for v anyway, there is no reason to.
    """
    mu, nu = moment_codec("mu_dtype", mu_dtype, b1), moment_codec("nu_dtype", nu_dtype, b2)
    unsaid = not isinstance(mu_dtype, Float) or mu_dtype.stochastic is None
    if nu.dithered and isinstance(mu, Float) and mu.dtype is not None and unsaid:
        mu = mu._replace(stochastic=jnp.finfo(mu.dtype).bits <= HALF_BITS)
    return mu, nu
