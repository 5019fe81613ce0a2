"""What a state weighs."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adamx.core.guarded import is_guard
from adamx.precision.master_weights import MASTERS
from adamx.storage.codec import is_quantized, shapes
from adamx.trees import Tree, named_leaves, nbytes
from adamx.variables import bare


class StateBytes(NamedTuple):
    """Bytes of a state, by leaf of the parameters; prints as a table.

    Attributes:
        leaves: for each path the number of elements and the bytes of all that the state keeps for them.
        rest: bytes of counts and of what belongs to no leaf.
    """

    leaves: dict[str, tuple[int, int]]
    rest: int

    @property
    def total(self) -> int:
        """All bytes."""
        return sum(size for _, size in self.leaves.values()) + self.rest

    @property
    def per_parameter(self) -> float:
        """All bytes over the number of parameters; NaN if there are none."""
        elements = sum(count for count, _ in self.leaves.values())
        return self.total / elements if elements else float("nan")

    def __str__(self) -> str:
        rows = [(name, count, size) for name, (count, size) in self.leaves.items()]
        rows += [("everything else", 0, self.rest), ("total", sum(count for _, count, _ in rows), self.total)]
        width = max(len(name) for name, *_ in rows)
        lines = [f"{'leaf':{width}}  {'elements':>12}  {'bytes':>14}  bytes/element"]
        lines += [f"{n:{width}}  {c:12,}  {b:14,}  {b / c if c else 0:13.3f}" for n, c, b in rows]
        return "\n".join(lines)


def state_bytes(state: Any) -> StateBytes:
    """Counts the bytes of a state for each leaf of the parameters.

    The moments or the master weights in the state tell the paths and shapes of the parameters. Every tree in the state
    that has some of them counts, whatever transformation keeps it: maxima, slow averages, accumulated gradients.

    Args:
        state: of any chain with moments or master weights in it; arrays or `jax.ShapeDtypeStruct`.

    Returns:
        Elements and bytes by path, and the rest.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.adam(1e-3, mu_dtype="bfloat16", nu_dtype="bfloat16")
        >>> print(adamx.state_bytes(tx.init({"w": jnp.zeros((100, 100)), "b": jnp.zeros(100)})))
        leaf                 elements           bytes  bytes/element
        b                         100             400          4.000
        w                      10,000          40,000          4.000
        everything else             0               4          0.000
        total                  10,100          40,404          4.000
    """
    state = bare(state)
    like = [tree for node in _find(state, _tells_parameters) for tree in _trees_like_parameters(node)]
    shapes_of = {name: np.shape(whole) for tree in like for name, whole in _wholes(tree).items()}
    kinds = {_kind(tree) for tree in like}

    def is_like_parameters(node: Any) -> bool:
        known = {name: x for name, x in _wholes(node).items() if name in shapes_of} if _kind(node) in kinds else {}
        return bool(known) and all(shapes_of[name] == np.shape(x) and not _is_count(x) for name, x in known.items())

    leaves: dict[str, tuple[int, int]] = {}
    for tree in _find(_unguarded(state), is_like_parameters):
        for name, stored in named_leaves(tree, is_quantized).items():
            elements = math.prod(np.shape(stored.codes if is_quantized(stored) else stored))
            leaves[name] = elements, leaves.get(name, (0, 0))[1] + _bytes(stored)
    return StateBytes(leaves, _bytes(state) - sum(size for _, size in leaves.values()))


def _unguarded(state: Any) -> Any:
    """The state without what guards keep for themselves, which may have the shape of a parameter."""

    def bare_of_guard(node: Any) -> Any:
        return _unguarded(node.inner) if is_guard(node) else node

    return jax.tree.map(bare_of_guard, state, is_leaf=is_guard)


def _tells_parameters(node: Any) -> bool:
    return isinstance(node, MASTERS) or (hasattr(node, "mu") and hasattr(node, "nu"))


def _trees_like_parameters(node: Any) -> list[Tree]:
    """What in a state surely has the parameters' structure and shapes; in a group, those of the group."""
    if isinstance(node, MASTERS):
        inner = _find(node.inner, _tells_parameters)
        return [node.remainder, *(tree for below in inner for tree in _trees_like_parameters(below))]
    return [node.mu]


def _wholes(tree: Tree) -> dict[str, Any]:
    """The arrays of a tree by path, quantized ones as one."""
    return named_leaves(shapes(tree))


def _is_count(x: Any) -> bool:
    return np.ndim(x) == 0 and jnp.issubdtype(x.dtype, jnp.integer)


def _kind(node: Any) -> Any:
    """The type of a container; None for an array."""
    return None if is_quantized(node) or jax.tree_util.all_leaves([node]) else type(node)


def _find(tree: Tree, wanted: Callable[[Any], bool]) -> list[Any]:
    """The nodes that are wanted, from the root down; nothing is sought within them."""
    return [node for node in jax.tree.leaves(tree, is_leaf=wanted) if wanted(node)]


def _bytes(tree: Tree) -> int:
    return sum(map(nbytes, jax.tree.leaves(tree)))
