"""Regular expressions that are searched in the paths of leaves."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

import jax
import optax

from adamx.trees import Tree, named_leaves

NEAR = 5
"""So many paths stand in the error for a pattern that matches none."""


def check_patterns(what: str, patterns: Iterable[Any]) -> tuple[str, ...]:
    """The patterns, or an error that names the argument and what is no regular expression."""
    found = tuple(patterns)
    for pattern in found:
        if not isinstance(pattern, str):
            raise TypeError(f"{what} takes regular expressions, got {pattern!r} of type {type(pattern).__name__}")
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{what}: {pattern!r} is not a regular expression, {error}") from None
    return found


def first_match(patterns: tuple[str, ...], name: str) -> int | None:
    """Which pattern is the first that is found in a path."""
    return next((i for i, pattern in enumerate(patterns) if re.search(pattern, name)), None)


def check_all_match(what: str, patterns: tuple[str, ...], tree: Tree) -> None:
    """Raises a ValueError if a pattern is found in no path of a tree.

    The leaves of other groups count, which `optax.masked` and `optax.partition` leave out, so that groups can share
    their patterns. Where a mask leaves out a whole subtree, its path counts, and what is below cannot be seen.
    """
    names = list(named_leaves(tree, _is_left_out))
    if all(map(_is_left_out, jax.tree.leaves(tree, is_leaf=_is_left_out))):
        return
    for pattern in patterns:
        if not any(re.search(pattern, name) for name in names):
            near = sorted(names, key=lambda name: _unlike(pattern, name))[:NEAR]
            raise ValueError(
                f"{what}: no path matches {pattern!r}. There are {len(names)}, among them: {', '.join(near)}"
            )


def _is_left_out(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)


def _unlike(pattern: str, name: str) -> float:
    """How far a pattern is from a path, or from the part of it that is nearest."""
    return -max(difflib.SequenceMatcher(None, pattern, part).ratio() for part in (name, *name.split("/")))
