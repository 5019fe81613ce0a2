"""Where two trees part, in the words of an error."""

from collections.abc import Sequence
from typing import Any

import jax


def path_name(path: Sequence[Any]) -> str:
    """A leaf's path as people write it, "encoder/layer_0/bias"; the root is "the tree itself"."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/") or "the tree itself"


FILTER = "of an Equinox model pass eqx.filter(model, eqx.is_inexact_array) to init and update"
"""What helps against leaves that are functions or strings."""


def is_object(leaf: Any) -> bool:
    """Whether a leaf is neither an array nor a number."""
    return not hasattr(leaf, "dtype") and not isinstance(leaf, bool | int | float | complex)


def _children(tree: Any) -> dict[str, tuple[Any, Any]] | None:
    """A node's children by printed key, each with its key; None for a leaf."""

    def below_root(node: Any) -> bool:
        return node is not tree

    found, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=below_root)
    if len(found) == 1 and not found[0][0]:
        return None
    return {path_name(path): (path, child) for path, child in found}


def first_difference(expected: Any, got: Any, path: tuple[Any, ...] = ()) -> str | None:
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
    if is_object(node):
        return f"{node!r} ({FILTER})"
    return f"an array of shape {tuple(getattr(node, 'shape', ()))}"
