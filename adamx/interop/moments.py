"""Moments out of one storage and into another: found in a state, decoded, encoded, leaf by leaf."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamx import numerics
from adamx.core.state import MomentsState
from adamx.optimizers.amsgrad import AmsgradState
from adamx.storage import Float, Int8, Quantized
from adamx.storage.codec import Codec, Stored, is_quantized
from adamx.trees import Tree, path_name
from adamx.variables import bare, flatten_with_path

LONG = 2**30
"""A last axis on which the number of blocks tells how long one is, up to 32,767."""

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


def block_sizes(tx: optax.GradientTransformation, params: optax.Params) -> dict[str, int]:
    """How many elements share a scale, by the path of each quantized moment in the state.

    A state does not tell: its last axis of 200 in 2 blocks may have blocks of 100 or of 128. Its transformation does,
    asked for the shapes that it would have with a very long last axis.

    Raises:
        ValueError: a block longer than that can tell.
    """

    def stretch(p: Any) -> jax.ShapeDtypeStruct:
        shape = (*np.shape(p)[:-1], max(LONG, np.shape(p)[-1])) if np.ndim(p) else ()
        return jax.ShapeDtypeStruct(shape, jnp.result_type(p))

    long = by_path(jax.eval_shape(tx.init, jax.tree.map(stretch, params)))
    sizes = {path: -(-q.codes.shape[-1] // q.scale.shape[-1]) for path, q in long.items() if is_quantized(q)}
    for path, size in sizes.items():
        if size * (size + 1) >= LONG:
            raise ValueError(
                f"the blocks at {path} are too long to be told: expected at most 32,767 elements, got {size}"
            )
    return sizes


def _codec(stored: Stored, block_size: int | None) -> Codec:
    """A codec for what is kept like this. Codes with a top are those of `Int8`, without one those of `Float`."""
    if not isinstance(stored, Quantized) or stored.top is None:
        return Float()
    assert block_size is not None
    return Int8(block_size=block_size)


def decode(where: str, stored: Any, block_size: int | None = None) -> jax.Array:
    """A stored moment in float32 or wider.

    Raises:
        TypeError: it is not as a codec of adamx keeps it.
    """
    codes = stored.codes if isinstance(stored, Quantized) else stored
    dtype = jnp.result_type(codes)
    plain = not isinstance(stored, Quantized) or stored.top is None
    if not jnp.issubdtype(dtype, jnp.inexact if plain else jnp.integer):
        raise TypeError(f"the moment at {where} cannot be carried: {dtype} is not of a codec of adamx")
    wide = jnp.dtype(jnp.float32) if isinstance(stored, Quantized) else numerics.compute_dtype(dtype)
    return _decode(stored, block_size, wide)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _decode(stored: Stored, block_size: int | None, dtype: jnp.dtype) -> jax.Array:
    return _codec(stored, block_size).decode(stored, dtype)


def encode(moment: Any, like: Any, square: bool, block_size: int | None = None) -> Stored:
    """A moment as it is kept in the types of `like`, rounded to nearest; what is too large becomes the largest."""
    types = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), like)  # pyright: ignore[reportUnknownLambdaType]
    return _encode(moment, types, square, block_size)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _encode(moment: jax.Array, like: Stored, square: bool, block_size: int | None) -> Stored:
    codec = _codec(like, block_size)
    moment = numerics.clamp(moment, codec.largest(like))
    bits = jnp.full(moment.shape, HALF) if codec.dithered else None
    return codec.encode(moment, like, bits, square=square)


def fill(path: Sequence[Any], node: Any, source: Source, sizes: Mapping[str, int]) -> Any:
    """A node that holds moments, with those of a source in it.

    Args:
        path: of the node in the state.
        node: gives types and shapes.
        source: gives the moments.
        sizes: of blocks, see `block_sizes`.
    """

    def stored(field: str, lookup: Lookup, square: bool) -> Tree:
        found, treedef = flatten_with_path(getattr(node, field), is_quantized)
        under = (*path, jax.tree_util.GetAttrKey(field))

        def leaf(rest: Sequence[Any], like: Any) -> Stored:
            size = sizes.get(path_name((*under, *rest)))
            new = encode(lookup(path_name(rest)), bare(like), square, size)
            return jax.tree.structure(like).unflatten(jax.tree.leaves(new))

        return treedef.unflatten([leaf(rest, like) for rest, like in found])

    values = {"count": source.count, "mu": stored("mu", source.mu, False), "nu": stored("nu", source.nu, True)}
    if isinstance(node, AmsgradState):
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), node.nu_max)  # pyright: ignore[reportUnknownLambdaType]
        values["nu_max"] = stored("nu_max", source.nu_max, True) if source.nu_max else zeros
    return node._replace(**values)
