"""From the argument `mu_dtype` or `nu_dtype` to a codec, and from what is stored back to one."""

import functools
import inspect
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from adamx import hyperparameters, numerics
from adamx.numerics import Scalar
from adamx.storage import blocks
from adamx.storage.codec import HALF_BITS, Codec, Quantized, Stored
from adamx.storage.coded import Coded
from adamx.storage.floats import Float
from adamx.storage.int4 import CODES, Int4
from adamx.storage.int8 import Int8
from adamx.storage.pairs import check_pair, check_rounding, half_ulp

TRACKS = 0.05
"""How far from a constant gradient an average may stop, relative to it, and still be said to track it."""

NO_ROOT = "Int4 holds m over the root of its v, and this average is divided by none: pass adamx.storage.Int8()"

METHODS = ("zeros", "decode", "encode", "largest")


def moment_codec(name: str, value: Any, decay: Scalar, *, square: bool = False, beside_v: bool = False) -> Codec:
    """The codec for a storage dtype, or the codec that came instead of one.

    A bare half-precision dtype rounds to nearest where that tracks. An average that goes (1-β) of the way in each step
    stops where this is less than half a unit in the last place: 4 % short of a constant in bfloat16 at β = 0.9, while
    at 0.999 it hardly moves. It is dithered where it would stop more than 5 % short, where β is an array, traced or
    not, in float8, and in a v in blocks, whose small elements are a few units apart. A complex dtype of m stands for
    the real one of its width, see `Float`.

    Raises:
        TypeError: neither a floating dtype nor a codec.
        ValueError: `Int4` for an average without a v.
    """
    if inspect.isclass(value) and all(hasattr(value, method) for method in METHODS):
        raise TypeError(f"{name} must be a dtype or a codec, got the class {value.__name__}: pass {value.__name__}()")
    if isinstance(value, Float):
        checked = value._replace(dtype=_storage_dtype(name, value.dtype, square))
    elif all(hasattr(value, method) for method in METHODS):
        if isinstance(value, Coded):
            value.check(name)
        if isinstance(value, Int4) and not square and not beside_v:
            raise ValueError(f"{name}={value!r}: {NO_ROOT}")
        return cast(Codec, value)
    else:
        checked = Float(_storage_dtype(name, value, square))
    if checked.stochastic is None:
        in_blocks = square and checked.resolution(square) is not None
        checked = checked._replace(stochastic=in_blocks or _nearest_stalls(checked.dtype, decay))
    return checked


def _storage_dtype(name: str, value: Any, square: bool) -> jnp.dtype | None:
    """A floating dtype that holds numbers of both signs and 0, or None."""
    try:
        given = None if value is None else jnp.dtype(value)
    except TypeError:
        given = None  # `floating_dtype` says what is wrong
    if given is not None and jnp.issubdtype(given, jnp.complexfloating):
        if square:
            raise TypeError(f"{name} is {given}, but v is real, also where parameters are complex: pass float32")
        if given == jnp.complex128 and not jax.config.read("jax_enable_x64"):
            raise ValueError(f"{name} is complex128, but JAX holds complex64 here: set jax_enable_x64 first")
        value = jnp.finfo(given).dtype
    if given in (np.dtype(np.int8), np.dtype(np.uint8)):
        raise TypeError(
            f"{name} must be a floating dtype or None, got {given}: for moments in 8-bit integers pass "
            f"{name}=adamx.storage.Int8()"
        )
    dtype = hyperparameters.floating_dtype(name, value)
    if dtype is not None and not (np.zeros(1, dtype) == 0).all():
        raise TypeError(f"{name} is {dtype}, which holds no 0: a moment begins at 0")
    return dtype


def _nearest_stalls(dtype: Any, decay: Scalar) -> bool:
    part = half_ulp(dtype)
    # An array may be traced in the next step: read now, it could give the state other fields than then.
    unknown = isinstance(decay, jax.Array)
    return part > 0 and (unknown or jnp.finfo(dtype).bits < HALF_BITS or part > TRACKS * (1 - decay))


def moment_codecs(mu_dtype: Any, nu_dtype: Any, b1: Scalar, b2: Scalar, p: float = 2.0) -> tuple[Codec, Codec]:
    """Both codecs. If v is dithered, m is dithered too, unless `mu_dtype` says otherwise.

    Alone, a bfloat16 m rounds to nearest, in the layout of optax's state, and stops up to 4 % short of a constant
    gradient. If v is dithered the counter exists, and m needs no rounding to nearest.

    Args:
        mu_dtype: the dtype or codec that stores m.
        nu_dtype: the dtype or codec that stores v.
        b1: β1.
        b2: β2.
        p: the power of |g| that v averages: steps divide by its p-th root. Infinity: v is a maximum of |g|.

    Raises:
        TypeError: a value that is neither a floating dtype nor a codec.
        ValueError: storages that would make steps longer than twice the exact ones.
    """
    mu = moment_codec("mu_dtype", mu_dtype, b1, beside_v=True)
    nu = moment_codec("nu_dtype", nu_dtype, b2, square=True)
    unsaid = not isinstance(mu_dtype, Float) or mu_dtype.stochastic is None
    if nu.dithered and isinstance(mu, Float) and mu.dtype is not None and unsaid:
        mu = mu._replace(stochastic=jnp.finfo(mu.dtype).bits <= HALF_BITS)
    check_rounding(mu, b1, nu, b2, p)
    check_pair(mu, nu, p)
    return mu, nu


def codec_of(where: str, stored: Any) -> Codec:
    """A codec for what is kept like this. Floating codes are those of `Float`, integers those of `Int8` or `Int4`.

    Args:
        where: the path of the moment.
        stored: the moment as it is kept.

    Raises:
        TypeError: it is not as a codec of adamx keeps it.
    """
    quantized = isinstance(stored, Quantized)
    dtype = jnp.result_type(stored.codes if quantized else stored)
    if jnp.issubdtype(dtype, jnp.inexact):
        return Float()
    if not quantized or not stored.apart or not jnp.issubdtype(dtype, jnp.integer):
        raise TypeError(f"the moment at {where} cannot be carried: {dtype} is not of a codec of adamx")
    size = blocks.size_of(stored.codes.shape[-1], stored.scales.shape[-2])
    return Int4(block_size=size) if dtype == CODES else Int8(block_size=size)


def decode(where: str, stored: Any) -> jax.Array:
    """A stored moment in float32 or wider.

    Args:
        where: the path of the moment.
        stored: the moment as it is kept.

    Raises:
        TypeError: it is not as a codec of adamx keeps it.
    """
    quantized = isinstance(stored, Quantized)
    codec_of(where, stored)
    return _decode(stored, jnp.dtype(jnp.float32) if quantized else numerics.compute_dtype(jnp.result_type(stored)))


@functools.partial(jax.jit, static_argnums=1)
def _decode(stored: Stored, dtype: jnp.dtype) -> jax.Array:
    return codec_of("a leaf", stored).decode(stored, dtype)
