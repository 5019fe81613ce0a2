"""Which storages of m and v go together: those with which no step is longer than twice the exact longest.

An exact step is m divided by the root of v. A stored one is longer where m is too large or v too small.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from adamx import hyperparameters
from adamx.numerics import Scalar
from adamx.storage.codec import HALF_BITS, Codec, Quantized, Resolution, Stored
from adamx.storage.floats import Float
from adamx.storage.int4 import Int4
from adamx.trees import Tree, path_name

LONGEST = 2.0
"""How many times as long as the exact longest step one of stored moments may be."""

TOGETHER = (
    "A float32, bfloat16 or Int4 m goes with every v. For m in float16, float8 or Int8 pass the same to mu_dtype and "
    "nu_dtype; of Int8, min_size and exclude must be the same and the block_size of v at least that of m"
)
TOGETHER_IN_ADAMAX = (
    "A float32 or bfloat16 m goes with every storage of the largest gradient. For m in float16 or float8 pass the same "
    "to mu_dtype and nu_dtype. An Int8 or Int4 m goes with none"
)


def half_ulp(dtype: Any) -> float:
    """Half a unit in the last place, relative to the number; 0 for dtypes wider than half precision."""
    return float(jnp.finfo(dtype).eps) / 2 if dtype is not None and jnp.finfo(dtype).bits <= HALF_BITS else 0.0


def _stops(codec: Codec, decay: Scalar, *, square: bool) -> float:
    """How far from x an average `a` of it may stop, relative to a, where it is rounded to nearest.

    It stops where `(1-β)|x - a|` is less than half a unit in the last place of a. In a block the smallest a is one
    unit. What an m of that size is off by, the v of its block bounds: see `check_pair`.
    """
    known = hyperparameters.known(decay)
    if known is None or not isinstance(codec, Float) or codec.stochastic is not False or not half_ulp(codec.dtype):
        return 0.0
    unit = 0.5 if square and codec.resolution(square) is not None else half_ulp(codec.dtype)
    return unit / (1 - known) if known < 1 else math.inf


def check_rounding(mu: Codec, b1: Scalar, nu: Codec | None = None, b2: Scalar = 0.0, p: float = 2.0) -> None:
    """Raises a ValueError where moments that are rounded to nearest stop so far off that steps get too long.

    Args:
        mu: how m is stored.
        b1: β1.
        nu: how v is stored; None: m alone is checked.
        b2: β2.
        p: as for `check_pair`; a maximum does not stop below |g|.
    """
    m = _stops(mu, b1, square=False)
    v = 0.0 if nu is None or math.isinf(p) else _stops(nu, b2, square=True)
    too_large, too_small = (1 / (1 - m) if m < 1 else math.inf), (1 + v) ** (1 / p)
    if too_large * too_small > LONGEST:
        name, codec, decay = ("mu_dtype", mu, b1) if too_large > too_small else ("nu_dtype", nu, b2)
        raise ValueError(
            f"{name}={codec!r} rounds to nearest, which stalls at a decay rate of {decay}: steps would be up to "
            f"{too_large * too_small:.2g} times as long as exact ones. Pass stochastic=True, or the dtype alone"
        )


def resolution(codec: Codec, square: bool) -> Resolution | None:
    """How fine a codec is within a block; None where it rounds an element relative to itself, or does not say."""
    return codec.resolution(square) if hasattr(codec, "resolution") else None  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]


def _named(codec: Codec) -> str:
    """A codec as the argument that asks for it."""
    return str(codec.dtype) if isinstance(codec, Float) else repr(codec)


def check_pair(mu: Codec, nu: Codec, p: float = 2.0) -> None:
    """Raises a ValueError where m is too coarse for v.

    In a block, m is off by `smallest` of the largest element at every element, however small that is. Divided by the
    root of a v that is known more finely, this is a step of any length. Where v shares a scale in the same block, it is
    never kept below its own `smallest`, and the root of that bounds the quotient.

    Args:
        mu: how m is stored.
        nu: how v is stored.
        p: the power of |g| that v averages: steps divide by its p-th root. Infinity: v is a maximum of |g|.
    """
    if isinstance(mu, Int4) and math.isinf(p):
        raise ValueError(f"mu_dtype={mu!r} holds m over the root of v, and AdaMax has no v. {TOGETHER_IN_ADAMAX}")
    fine = resolution(mu, False)
    if fine is None:
        return
    coarse = resolution(nu, True)
    if coarse is None or coarse.block_size % fine.block_size or coarse.apart > fine.apart:
        reason = "v does not share a scale in the same blocks, or in multiples of them"
    else:
        least = coarse.smallest if math.isinf(p) else coarse.smallest ** (1 / p)
        if fine.smallest <= least:
            return
        reason = f"what it is divided by is known down to {least:.2g} of the largest"
    undeclared = "" if hasattr(nu, "resolution") else ". A codec of your own tells its blocks by resolution(square)"
    raise ValueError(
        f"mu_dtype={_named(mu)} and nu_dtype={_named(nu)} do not go together: m is known to {fine.smallest:.2g} of the "
        f"largest of {fine.block_size} neighbours, and {reason}. Small elements of a block would make steps many times "
        f"as long as exact ones. {TOGETHER_IN_ADAMAX if math.isinf(p) else TOGETHER}{undeclared}"
    )


def check_belief(mu: Codec, nu: Codec) -> None:
    """Raises a ValueError where both moments of AdaBelief are `Int4`.

    An m over the root of a v that moves from level to level is off by more than over a smooth one. In other optimizers
    v is an average of gradients alone; AdaBelief's is one of `(g - m)²`, in which that error comes back.

    Args:
        mu: how m is stored.
        nu: how s is stored.
    """
    if isinstance(mu, Int4) and isinstance(nu, Int4):
        raise ValueError(
            f"mu_dtype={mu!r} and nu_dtype={nu!r} do not go together in AdaBelief: s averages (g - m)², so that what m "
            f"is off by comes back in s, and steps would be over {LONGEST:.2g} times as long as exact ones. Pass "
            "adamx.storage.Int8() to one of the two"
        )


def check_leaf(where: str, mu_codec: Codec, mu: Stored, nu: Stored) -> None:
    """Raises a ValueError where m of a leaf shares a scale and v does not: the codecs leave out different leaves."""
    if resolution(mu_codec, False) is None or not isinstance(mu, Quantized) or isinstance(nu, Quantized):
        return
    if mu.codes.size:
        raise ValueError(
            f"at {where} nu_dtype keeps v in {jnp.result_type(nu)}, but mu_dtype holds m in blocks: its small elements "
            f"would make steps many times as long as exact ones. {TOGETHER}"
        )


def check_moment(mu_codec: Codec, mu: Tree, nu_codec: Codec, nu: Tree) -> None:
    """The checks of a pair and of its leaves, for an m that a stage of its own keeps beside a v.

    Args:
        mu_codec: how m is stored.
        mu: m as it is stored.
        nu_codec: how v is stored.
        nu: v as it is calculated.

    Raises:
        ValueError: m is too coarse for v.
    """
    if resolution(mu_codec, False) is None:
        return
    check_pair(mu_codec, nu_codec)
    found, treedef = jax.tree_util.tree_flatten_with_path(nu)
    for (path, v), stored in zip(found, treedef.flatten_up_to(mu), strict=True):
        like = jax.ShapeDtypeStruct(v.shape, v.dtype)
        zeros = functools.partial(nu_codec.zeros, like, v.dtype, square=True, where=path_name(path))
        check_leaf(path_name(path), mu_codec, stored, jax.eval_shape(zeros))
