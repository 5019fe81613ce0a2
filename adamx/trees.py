"""From one array to a tree of them: the check that trees fit, and the lift of a formula to their leaves."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from adamx.numerics import compute_dtype
from adamx.variables import bare, flatten_with_path, holds_leaf, is_variable, put_back

Tree = Any
"""A tree of arrays, in any container that JAX knows."""


def path_name(path: Sequence[Any]) -> str:
    """A leaf's path as people write it, "encoder/layer_0/bias"; the root is "the tree itself"."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/") or "the tree itself"


def named_leaves(tree: Tree, is_leaf: Callable[[Any], bool] | None = None) -> dict[str, Any]:
    """The leaves of a tree by the names of their paths, in the order of the tree."""
    return {path_name(path): leaf for path, leaf in flatten_with_path(tree, is_leaf)[0]}


FILTER = "of an Equinox model pass eqx.filter(model, eqx.is_inexact_array) to init and update"
"""What helps against leaves that are functions or strings."""


def _no_number(what: str, path: Sequence[Any], leaf: Any) -> TypeError:
    came = f"dtype {leaf.dtype}" if hasattr(leaf, "dtype") else f"{leaf!r} of type {type(leaf).__name__}"
    return TypeError(
        f"{what} at {path_name(path)} must be an array of real or complex floating numbers, got {came}. Leave such "
        "leaves out with optax.masked, or partition them to optax.set_to_zero()"
        f"{'; ' + FILTER if _is_object(leaf) else ''}"
    )


def _is_object(leaf: Any) -> bool:
    """Whether a leaf is neither an array nor a number."""
    return not hasattr(leaf, "dtype") and not isinstance(leaf, bool | int | float | complex)


def check_arrays(what: str, tree: Tree) -> None:
    """Raises a TypeError with the path of the first leaf that is neither an array nor a number."""
    for path, leaf in flatten_with_path(tree)[0]:
        if _is_object(leaf):
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


def _children(tree: Any) -> dict[str, tuple[Any, Any]] | None:
    """A node's children by printed key, each with its key; None for a leaf."""

    def below_root(node: Any) -> bool:
        return node is not tree

    found, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=below_root)
    if len(found) == 1 and not found[0][0]:
        return None
    return {path_name(path): (path, child) for path, child in found}


def first_difference(expected: Tree, got: Tree, path: tuple[Any, ...] = ()) -> str | None:
    """Where two trees part, in words; None if they have one structure."""
    left, right = _children(expected), _children(got)
    where = path_name(path)
    if left is None or right is None:
        return None if left is right else f"at {where} expected {_kind(expected)}, got {_kind(got)}"
    if type(expected) is not type(got):
        return f"at {where} expected {_kind(expected)}, got {_kind(got)}"
    for word, keys in (("missing", left.keys() - right.keys()), ("unexpected", right.keys() - left.keys())):
        if keys:
            key, _ = (left | right)[sorted(keys)[0]]
            return f"{word} {path_name((*path, *key))}"
    for name, (key, child) in left.items():
        difference = first_difference(child, right[name][1], (*path, *key))
        if difference:
            return difference
    ours, theirs = jax.tree.structure(expected), jax.tree.structure(got)
    return None if ours == theirs else f"at {where} expected {ours}, got {theirs}"


def _kind(node: Any) -> str:
    if node is None or not jax.tree_util.all_leaves([node]):
        return "None" if node is None else type(node).__name__
    if _is_object(node):
        return f"{node!r} ({FILTER})"
    return f"an array of shape {tuple(getattr(node, 'shape', ()))}"


def check_leaves(what: str, tree: Tree) -> None:
    """Raises a TypeError with the path of the first leaf that is no floating or complex array or Python float."""
    for path, leaf in flatten_with_path(tree)[0]:
        leaf_dtype(what, path, leaf)


def check_fits(tree: Tree, expected: Tree, what: str = "gradient", like: str = "parameter") -> None:
    """Raises unless a tree has the structure and shapes of another.

    Args:
        tree: what came.
        expected: a tree of arrays.
        what: a leaf of `tree` in words.
        like: a leaf of `expected` in words.

    Raises:
        ValueError: another structure or shape, with the path of the first leaf that differs.
        TypeError: a leaf that is no floating array, or is complex where the expected one is real.
    """
    leaves, treedef = flatten_with_path(tree)
    if treedef != jax.tree.structure(expected):
        raise ValueError(
            f"the {what} tree does not have the structure of the {like} tree: {first_difference(expected, tree)}"
        )
    for (path, x), y in zip(leaves, jax.tree.leaves(expected), strict=True):
        dtype, reference = leaf_dtype(what, path, x), jnp.result_type(y)
        shape, wanted = tuple(getattr(x, "shape", ())), tuple(getattr(y, "shape", ()))
        if shape != wanted:
            raise ValueError(f"{what} at {path_name(path)} has shape {shape}, its {like} has shape {wanted}")
        if jnp.issubdtype(dtype, jnp.complexfloating) and not jnp.issubdtype(reference, jnp.complexfloating):
            raise TypeError(f"{what} at {path_name(path)} is {dtype}, its {like} is real: take the real part of it")


def result_dtype(*leaves: Any) -> jnp.dtype:
    """The compute precision of arrays that meet in one formula."""
    return compute_dtype(*(jnp.result_type(leaf) for leaf in leaves))


def _staged() -> bool:
    """Whether operations are being recorded into a program (jit, scan, eval_shape) instead of run one by one."""
    return isinstance(jnp.zeros(()), Tracer)


def map_leaves(formula: Callable[..., tuple[Any, ...]], outputs: int, tree: Tree, *rest: Tree) -> tuple[Tree, ...]:
    """Applies a formula on arrays to each leaf of `tree` and what `rest` has in its place, and gives `outputs` trees.

    While a program is recorded the formula is traced once for each distinct shape instead of once for each leaf,
    which halves the time to trace a large tree; XLA inlines the calls, and the bits are those of the plain formula.
    """
    leaves, treedef = jax.tree.flatten(tree, is_leaf=holds_leaf)
    columns = [leaves, *(treedef.flatten_up_to(other) for other in rest)]
    on_arrays = jax.jit(formula) if _staged() else formula
    rows = [_inside(on_arrays, *row) for row in zip(*columns, strict=True)]
    return tuple(treedef.unflatten([row[i] for row in rows]) for i in range(outputs))


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
