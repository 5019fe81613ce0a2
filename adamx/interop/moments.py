"""Moments out of one storage and into another: found in a state, decoded, encoded, leaf by leaf."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adamx import numerics
from adamx.core.state import MomentsState
from adamx.optimizers.amsgrad import AmsgradState
from adamx.storage.choice import codec_of, decode
from adamx.storage.codec import Stored, is_quantized
from adamx.storage.int4 import is_over_root, over_root
from adamx.trees import Tree, path_name
from adamx.variables import bare, flatten_with_path, map_with_path

HALF = np.uint32(2**31)
"""The threshold that rounds to nearest: once, when storage changes, that is closest and biases nothing."""

Lookup = Callable[[str], Any]
"""From the path of a parameter to its moment, in float32 or wider."""


class Source(NamedTuple):
    """Moments that are to be stored anew.

    Attributes:
        count: the number of steps taken.
        mu: gives m of a parameter.
        nu: gives v.
        nu_max: gives the largest v̂, or None: it starts at 0, so that the next v̂ is the first it sees.
    """

    count: Any
    mu: Lookup
    nu: Lookup
    nu_max: Lookup | None = None


def is_moments(node: Any) -> bool:
    """Whether a node of a state holds moments."""
    return isinstance(node, MomentsState | AmsgradState)


def by_path(moment: Tree, path: Sequence[Any] = ()) -> dict[str, Any]:
    """The stored moments of a tree by path, quantized ones whole."""
    found, _ = flatten_with_path(bare(moment), is_quantized)
    return {path_name((*path, *rest)): stored for rest, stored in found}


def encode(moment: Any, like: Any, square: bool) -> Stored:
    """A moment as it is kept in the types of `like`, rounded to nearest; what is too large becomes the largest.

    An m in `Int4` is given over the root of its v.
    """
    types = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), like)  # pyright: ignore[reportUnknownLambdaType]
    return _encode(moment, types, square)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _encode(moment: jax.Array, like: Stored, square: bool) -> Stored:
    codec = codec_of("a leaf", like)
    moment = numerics.clamp(moment, codec.largest(like))
    bits = jnp.full(moment.shape, HALF) if codec.dithered else None
    return codec.encode(moment, like, bits, square=square)


def fill(node: Any, source: Source) -> Any:
    """A node that holds moments, with those of a source in it.

    Args:
        node: gives types and shapes.
        source: gives the moments.
    """
    kept: dict[str, Any] = {}

    def over_kept(name: str) -> Any:
        """m, in `Int4` over the root of the v that is kept with it."""
        whole = kept.get(name)
        return source.mu(name) if whole is None else over_root(jnp.asarray(source.mu(name)), whole)

    def stored(field: str, lookup: Lookup, square: bool) -> Tree:
        def leaf(path: Sequence[Any], like: Any) -> Stored:
            new = encode(lookup(path_name(path)), bare(like), square)
            return jax.tree.structure(like).unflatten(jax.tree.leaves(new))

        return map_with_path(leaf, getattr(node, field), is_quantized)

    nu = stored("nu", source.nu, True)
    small = {name for name, like in by_path(node.mu).items() if is_over_root(like)}
    kept.update({name: decode(name, v) for name, v in by_path(nu).items() if name in small})
    values = {"count": source.count, "mu": stored("mu", over_kept, False), "nu": nu}
    if isinstance(node, AmsgradState):
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), node.nu_max)  # pyright: ignore[reportUnknownLambdaType]
        values["nu_max"] = stored("nu_max", source.nu_max, True) if source.nu_max else zeros
    return node._replace(**values)
