"""What a state weighs."""

from typing import Any, NamedTuple

import jax
import numpy as np

from adamx.core.state import DitheredMomentsState, MomentsState
from adamx.precision.master_weights import MasterWeightsState
from adamx.storage.codec import shapes
from adamx.trees import Tree, path_name


class StateBytes(NamedTuple):
    """Bytes of a state, by leaf of the parameters; prints as a table.

    Attributes:
        leaves: for each path the number of elements and the bytes of all that the state keeps for them.
        rest: bytes of counts and of what other transformations keep.
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
    """How many bytes a state keeps for each leaf of the parameters.

    Args:
        state: of any chain with adamx's moments or master weights in it; arrays or `jax.ShapeDtypeStruct`.

    Returns:
        Elements and bytes by path, and the rest.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.adam(1e-3, mu_dtype="bfloat16", nu_dtype="bfloat16")
        >>> print(adamx.state_bytes(tx.init({"w": jnp.zeros((100, 100)), "b": jnp.zeros(100)})))
        leaf                 elements           bytes  bytes/element
        b                         100             400          4.000
        w                      10,000          40,000          4.000
        everything else             0               8          0.000
        total                  10,100          40,408          4.001
    """
    leaves: dict[str, tuple[int, int]] = {}

    def add(tree: Tree) -> None:
        wholes, treedef = jax.tree_util.tree_flatten_with_path(shapes(tree))
        for (path, whole), stored in zip(wholes, treedef.flatten_up_to(tree), strict=True):
            name = path_name(path)
            leaves[name] = np.size(whole), leaves.get(name, (0, 0))[1] + _bytes(stored)

    def visit(node: Any) -> None:
        if isinstance(node, MomentsState | DitheredMomentsState):
            add(node.mu)
            add(node.nu)
        elif isinstance(node, MasterWeightsState):
            add(node.remainder)
            jax.tree.map(visit, node.inner, is_leaf=ours)

    def ours(node: Any) -> bool:
        return isinstance(node, MomentsState | DitheredMomentsState | MasterWeightsState)

    jax.tree.map(visit, state, is_leaf=ours)
    return StateBytes(leaves, _bytes(state) - sum(size for _, size in leaves.values()))


def _bytes(tree: Tree) -> int:
    return sum(int(np.size(x)) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))
