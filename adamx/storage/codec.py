"""What a codec is: how one moment of one leaf is held between steps."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from adamx.trees import Tree, check_fits, first_state, fits, leaf_dtype, path_name

HALF_BITS = 16
"""The width of half precision: narrower dtypes than float32 need a codec's care."""


def is_half(dtype: Any) -> bool:
    """Whether a dtype is real, floating and narrower than float32."""
    return jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits <= HALF_BITS


class Quantized(NamedTuple):
    """A quantized moment: codes of half a byte to two bytes per element, and one or two numbers for each block.

    Both arrays can be sharded by the `PartitionSpec` of the parameter, as long as it splits no block.

    Attributes:
        codes: an array of the parameter's shape, (..., n).
        scales: of the shape (..., blocks, 1) or (..., blocks, 2): the unit of each block, and its largest element if
            the codec keeps that apart.
    """

    codes: jax.Array
    scales: jax.Array

    @property
    def apart(self) -> bool:
        """Whether the largest element of each block is kept apart."""
        return self.scales.shape[-1] == 2


class Resolution(NamedTuple):
    """How finely a codec with shared scales resolves a moment.

    Attributes:
        block_size: elements of the last axis that share a scale, a power of two.
        smallest: the least magnitude that is not 0, relative to the largest of the block.
        apart: whether the largest element has its own number, and `smallest` is relative to the second largest.
    """

    block_size: int
    smallest: float
    apart: bool = False


Stored = jax.Array | Quantized
"""A moment as it is kept."""


class Codec(Protocol):
    """How a moment is stored. Pure, elementwise or in blocks of the last axis, and equal under jit, scan and vmap.

    A codec of your own goes wherever `mu_dtype` or `nu_dtype` is taken. If its elements share a scale, give it a method
    `resolution(square)` that returns an `adamx.storage.Resolution`, or None where an element is rounded relative to
    itself. A pair in which m is too coarse for v then raises, see `scale_by_moments`. A codec without that method is
    taken as m without a check, and as v only below an m that is rounded relative to itself.

    Example:
        A codec that keeps both moments of every leaf in float32, whatever the parameters are:

        >>> import jax.numpy as jnp, adamx
        >>> class Single:
        ...     dithered, seed = False, 0
        ...     def zeros(self, like, dtype, *, square, where=""):
        ...         return jnp.zeros_like(like, dtype=jnp.float32)
        ...     def decode(self, stored, dtype):
        ...         return stored.astype(dtype)
        ...     def encode(self, moment, like, bits, *, square):
        ...         return moment.astype(jnp.float32)
        ...     def largest(self, stored):
        ...         return float(jnp.finfo(jnp.float32).max)
        >>> codec: adamx.storage.Codec = Single()
        >>> adamx.adam(1e-3, mu_dtype=codec, nu_dtype=codec).init(jnp.zeros(2))[0].mu
        Array([0., 0.], dtype=float32)
    """

    @property
    def dithered(self) -> bool:
        """Whether `encode` wants random bits; the state then counts steps for them."""
        ...

    @property
    def seed(self) -> int:
        """Tells the random bits of one run from those of another."""
        ...

    def zeros(self, like: Any, dtype: DTypeLike, *, square: bool, where: str = "a leaf") -> Stored:
        """The moment of a parameter before the first step.

        Args:
            like: the parameter, or a `jax.ShapeDtypeStruct`.
            dtype: its dtype.
            square: whether the moment is an average of squares, real and non-negative.
            where: the path of the leaf.
        """
        ...

    def decode(self, stored: Stored, dtype: DTypeLike) -> jax.Array:
        """The moment in compute precision."""
        ...

    def encode(self, moment: jax.Array, like: Stored, bits: jax.Array | None, *, square: bool) -> Stored:
        """The moment as it is kept, in the types of `like`, what was kept before.

        Args:
            moment: in compute precision.
            like: tells shapes and dtypes, not values.
            bits: uint32 of the moment's shape, 2^32 times the thresholds of rounding, or None if not `dithered`.
            square: as in `zeros`; what is not 0 must then not be kept as 0.
        """
        ...

    def largest(self, stored: Stored) -> float:
        """The largest number that can be kept."""
        ...


def first_moments(
    params: Tree, *codecs: tuple[Codec, bool], check: Callable[..., None] | None = None
) -> tuple[Tree, ...]:
    """The moments of a tree of parameters before the first step.

    Args:
        params: arrays or `jax.ShapeDtypeStruct`.
        *codecs: the codec of each moment, and whether it is an average of squares.
        check: raises where the moments of one leaf do not go together, from its path and them.

    Returns:
        A tree for each of them.
    """
    for codec, _ in codecs:
        check_paths = getattr(codec, "check_paths", None)
        if check_paths is not None:
            check_paths(params)

    def zeros(path: Any, p: Any) -> tuple[Stored, ...]:
        dtype, where = leaf_dtype("parameter", path, p), path_name(path)
        found = tuple(codec.zeros(p, dtype, square=square, where=where) for codec, square in codecs)
        if check is not None:
            check(where, *found)
        return found

    return first_state(zeros, len(codecs), params)


def is_quantized(node: Any) -> bool:
    """Whether a moment is held in codes."""
    return isinstance(node, Quantized)


def precision(stored: Stored) -> jnp.dtype:
    """The dtype that stands for a stored moment: its own, or float32 for quantized ones."""
    return jnp.dtype(jnp.float32) if isinstance(stored, tuple) else jnp.result_type(stored)


def check_fits_moment(gradients: Tree, moment: Tree) -> None:
    """Raises unless gradients have the structure and shapes of a moment that a state keeps, see `check_fits`."""
    if not fits(gradients, moment):
        check_fits(gradients, shapes(moment), of_state=True)


def shapes(moment: Tree) -> Tree:
    """A tree of stored moments as one of arrays: codes stand for what is quantized, as float32."""

    def single(codes: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(codes.shape, jnp.float32)

    def plain(stored: Any) -> Any:
        return jax.tree.map(single, stored.codes) if is_quantized(stored) else stored

    return jax.tree.map(plain, moment, is_leaf=is_quantized)


def wrong_codes(expected: str, came: str) -> TypeError:
    """The error for a moment that another codec has stored."""
    return TypeError(
        f"expected a moment stored as {expected}, got {came}: a state with another mu_dtype or nu_dtype moves to the "
        "storage of tx by adamx.interop.restore_as(tx, state, params)"
    )
