"""From one array to a tree of them: the check that trees fit, and the lift of a formula to their leaves."""

import functools
import math
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from adamx.differences import FILTER, first_difference, is_object, path_name
from adamx.numerics import compute_dtype
from adamx.variables import bare, flatten_with_path, has_variables, holds_leaf, is_variable, put_back

Tree = Any
"""A tree of arrays, in any container that JAX knows."""


def named_leaves(tree: Tree, is_leaf: Callable[[Any], bool] | None = None) -> dict[str, Any]:
    """The leaves of a tree by the names of their paths, in the order of the tree."""
    return {path_name(path): leaf for path, leaf in flatten_with_path(tree, is_leaf)[0]}


def _no_number(what: str, path: Sequence[Any], leaf: Any) -> TypeError:
    dtype = getattr(leaf, "dtype", None)
    came = f"{leaf!r} of type {type(leaf).__name__}" if dtype is None else f"dtype {dtype}"
    way_out = 'Leave such leaves out: adamx.route({"their/path": None}, default=tx), in NNX nnx.state(model, nnx.Param)'
    if dtype == jax.dtypes.float0:
        came = "dtype float0"
        way_out = (
            "jax.grad(..., allow_int=True) gives float0 to an integer parameter: put jnp.zeros_like(parameter) in its "
            "place and leave the leaf out, adamx.route({'its/path': None}, default=tx), or differentiate by the "
            "floating parameters alone"
        )
    elif is_object(leaf):
        way_out += f"; {FILTER}"
    return TypeError(
        f"{what} at {path_name(path)} must be an array of real or complex floating numbers, got {came}. {way_out}"
    )


def check_arrays(what: str, tree: Tree) -> None:
    """Raises a TypeError with the path of the first leaf that is neither an array nor a number."""
    for path, leaf in flatten_with_path(tree)[0]:
        if is_object(leaf):
            raise _no_number(what, path, leaf)


def leaf_dtype(what: str, path: Sequence[Any], leaf: Any) -> jnp.dtype:
    """The floating or complex dtype of a leaf (of a Python float: JAX's default), else a TypeError with its path."""
    dtype = getattr(leaf, "dtype", None)
    if dtype is None:
        if isinstance(leaf, bool | int) or not isinstance(leaf, float | complex):
            raise _no_number(what, path, leaf)
        return jnp.result_type(leaf)
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise _no_number(what, path, leaf)
    return jnp.dtype(jax.dtypes.canonicalize_dtype(dtype))


@functools.lru_cache(maxsize=1024)
def _is_inexact(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.inexact)


def check_leaves(what: str, tree: Tree) -> None:
    """Raises a TypeError with the path of the first leaf that is no floating or complex array or Python float."""
    if _all_have(jax.tree.leaves(tree), _is_inexact):
        return  # paths cost more than all else here
    for path, leaf in flatten_with_path(tree)[0]:
        leaf_dtype(what, path, leaf)


def check_fits(
    tree: Tree, expected: Tree, what: str = "gradient", like: str = "parameter", *, of_state: bool = False
) -> None:
    """Raises unless a tree has the structure and shapes of another.

    Args:
        tree: what came.
        expected: a tree of arrays.
        what: a leaf of `tree` in words.
        like: a leaf of `expected` in words.
        of_state: whether a state keeps `expected`, for the parameters that it was made for.

    Raises:
        ValueError: another structure or shape, with the path of the first leaf that differs.
        TypeError: a leaf that is no floating array, or is complex where the expected one is real.
    """
    if fits(tree, expected):
        return
    leaves, treedef = flatten_with_path(tree)
    if treedef != jax.tree.structure(expected):
        raise ValueError(
            f"the {what} tree does not have the structure of the {like} tree{_MADE_FOR if of_state else ''}: "
            f"{first_difference(expected, tree)}"
        )
    for (path, x), y in zip(leaves, jax.tree.leaves(expected), strict=True):
        dtype, reference = leaf_dtype(what, path, x), leaf_dtype(like, path, y)
        shape, wanted = tuple(getattr(x, "shape", ())), tuple(getattr(y, "shape", ()))
        if shape != wanted:
            other = (
                f"the state was made for a {like} of shape {wanted}" if of_state else f"its {like} has shape {wanted}"
            )
            new = ". Parameters of other shapes need a new state, tx.init(params)" if of_state else ""
            raise ValueError(f"{what} at {path_name(path)} has shape {shape}, {other}{new}")
        if jnp.issubdtype(dtype, jnp.complexfloating) and not jnp.issubdtype(reference, jnp.complexfloating):
            raise TypeError(f"{what} at {path_name(path)} is {dtype}, its {like} is real: take the real part of it")


_MADE_FOR = " that the state was made for"


def fits(tree: Tree, expected: Tree) -> bool:
    """Whether two trees are of one structure, of real floating arrays of equal shapes: without a look at paths."""
    (leaves, treedef), (others, structure) = jax.tree.flatten(tree), jax.tree.flatten(expected)
    if treedef != structure:
        return False
    return _all_have(leaves + others, _is_real) and list(map(_shape, leaves)) == list(map(_shape, others))


_shape, _dtype = attrgetter("shape"), attrgetter("dtype")


def _all_have(leaves: Sequence[Any], kind: Callable[[Any], bool]) -> bool:
    """Whether all leaves are arrays of a kind of dtype."""
    try:
        return all(map(kind, set(map(_dtype, leaves))))
    except AttributeError:
        return False


@functools.lru_cache(maxsize=1024)
def _is_real(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating)


def result_dtype(*leaves: Any) -> jnp.dtype:
    """The compute precision of arrays that meet in one formula."""
    return compute_dtype(*map(jnp.result_type, leaves))


def staged() -> bool:
    """Whether operations are being recorded into a program (jit, scan, eval_shape) instead of run one by one."""
    return isinstance(jnp.zeros(()), Tracer)


def _recorded(leaves: Sequence[Any]) -> bool:
    """Whether arrays are those of a program: outside of one no leaf is traced, which is quicker to see."""
    for leaf in leaves:
        if isinstance(leaf, Tracer):
            return staged()
    return False


def map_leaves(formula: Callable[..., tuple[Any, ...]], outputs: int, tree: Tree, *rest: Tree) -> tuple[Tree, ...]:
    """Applies a formula on arrays to each leaf of `tree` and what `rest` has in its place, and gives `outputs` trees.

    While a program is recorded the formula is traced once for each distinct shape instead of once for each leaf,
    which halves the time to trace a large tree; XLA inlines the calls, and the bits are those of the plain formula.
    """
    variables = has_variables(jax.tree.structure(tree))
    leaves, treedef = jax.tree.flatten(tree, is_leaf=holds_leaf if variables else None)
    on_arrays = jax.jit(formula) if _recorded(leaves) else formula
    on_leaf = functools.partial(_inside, on_arrays) if variables else on_arrays
    rows = map(on_leaf, leaves, *map(treedef.flatten_up_to, rest))
    found = list(zip(*rows, strict=True)) or [()] * outputs
    return tuple(map(treedef.unflatten, found))


def _is_integer(leaf: Any) -> bool:
    dtype = getattr(leaf, "dtype", np.dtype(type(leaf)))
    return jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.bool_)


def nbytes(x: Any) -> int:
    """The bytes of an array on a device, from its shape and dtype: two numbers of four bits share one."""
    dtype = jnp.result_type(x)
    bits = 4 if dtype in (jnp.int4, jnp.uint4) else 8 * dtype.itemsize
    return -(-math.prod(np.shape(x)) * bits // 8)


def first_state(formula: Callable[[Any, Any], tuple[Any, ...]], outputs: int, params: Tree) -> tuple[Tree, ...]:
    """What a state keeps before the first step: `map_paths` over the parameters.

    An integer or boolean parameter gets zeros of its own dtype, as from optax: a tree that is never updated may hold
    some. The first `update` refuses it with its path.
    """

    def start(path: Any, p: Any) -> tuple[Any, ...]:
        if _is_integer(p):
            return tuple(jnp.zeros_like(p) for _ in range(outputs))
        return formula(path, p)

    return map_paths(start, outputs, params)


def map_paths(formula: Callable[..., tuple[Any, ...]], outputs: int, tree: Tree, *rest: Tree) -> tuple[Tree, ...]:
    """Applies a function of path, leaf and what `rest` has in its place to each leaf, and gives `outputs` trees."""
    found, treedef = flatten_with_path(tree, holds_leaf)
    columns = [found, *(treedef.flatten_up_to(other) for other in rest)]
    rows = [
        _inside(functools.partial(formula, path), leaf, *others) for (path, leaf), *others in zip(*columns, strict=True)
    ]
    return tuple(treedef.unflatten([row[i] for row in rows]) for i in range(outputs))


def _inside(formula: Callable[..., tuple[Any, ...]], first: Any, *rest: Any) -> tuple[Any, ...]:
    """What a formula gives of leaves; of variables it gets what they hold, and the first one holds what it gives."""
    if not is_variable(first):
        return formula(first, *rest)
    return tuple(put_back(first, x) for x in formula(*map(bare, (first, *rest))))
