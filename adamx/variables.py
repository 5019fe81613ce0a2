"""Flax's variables: nodes around one array, or a tree, whose field is no part of a path."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

VARIABLES = {("flax.nnx.variablelib", "Variable"), ("flax.core.meta", "AxisMetadata")}
"""What the types of NNX (`nnx.Param`) and of Linen (`nn.Partitioned`) inherit from; flax need not be installed."""


@functools.cache
def _inherits(kind: type[Any]) -> bool:
    return any((base.__module__, base.__name__) in VARIABLES for base in kind.__mro__)


def is_variable(node: Any) -> bool:
    """Whether a node is a variable of Flax."""
    return _inherits(type(node))


def _open(variable: Any) -> tuple[Any, Any]:
    """What a variable holds, and the structure of the variable alone."""

    def is_inside(node: Any) -> bool:
        return node is not variable

    (held,), around = jax.tree.flatten(variable, is_leaf=is_inside)
    return held, around


@functools.lru_cache(maxsize=1024)
def has_variables(treedef: Any) -> bool:
    """Whether there are variables in trees of a structure."""
    nodes = [treedef]
    for node in nodes:
        nodes += node.children()
    return any(map(_inherits, {node.node_data()[0] for node in nodes if node.node_data()}))


def holds_leaf(node: Any) -> bool:
    """Whether a node is a variable around one leaf."""
    return is_variable(node) and jax.tree_util.all_leaves([_open(node)[0]])


def bare(tree: Any) -> Any:
    """A tree with what they hold in the place of variables. Its leaves have the same order."""
    if not has_variables(jax.tree.structure(tree)):
        return tree

    def content(node: Any) -> Any:
        return bare(_open(node)[0]) if is_variable(node) else node

    return jax.tree.map(content, tree, is_leaf=is_variable)


def put_back(variable: Any, found: Any) -> Any:
    """What takes the place of a variable in another tree: the variable around each array of the shape that it holds.

    Flax wraps the arrays of an optimizer's state one by one, so a moment of several arrays holds variables and is not
    held by one. Its scales go without: the variable may say how an array of the parameter's shape is sharded.
    """
    held, around = _open(variable)

    def put(x: Any) -> Any:
        return around.unflatten([x]) if np.shape(x) == np.shape(held) else x

    return jax.tree.map(put, found)


def flatten_with_path(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> tuple[list[tuple[Any, Any]], Any]:
    """`jax.tree_util.tree_flatten_with_path`, where the path of a variable is that of what it holds."""
    if not has_variables(jax.tree.structure(tree)):
        return jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)

    def stops(node: Any) -> bool:
        return is_variable(node) or (is_leaf is not None and is_leaf(node))

    outer, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=stops)
    found: list[tuple[Any, Any]] = []
    for path, node in outer:
        if is_variable(node) and not (is_leaf is not None and is_leaf(node)):
            below, _ = flatten_with_path(_open(node)[0], is_leaf)
            found += [((*path, *rest), leaf) for rest, leaf in below]
        else:
            found.append((path, node))
    return found, jax.tree.structure(tree, is_leaf=is_leaf)


def map_with_path(f: Callable[[Any, Any], Any], tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """`jax.tree_util.tree_map_with_path` of one tree with these paths."""
    found, treedef = flatten_with_path(tree, is_leaf)
    return treedef.unflatten([f(path, leaf) for path, leaf in found])
