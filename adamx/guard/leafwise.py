"""A transformation on one leaf of a tree at a time: its state taken apart by leaf and put together again."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax
from jax.extend.core import Literal

from adamx.storage.codec import Quantized
from adamx.trees import Tree, path_name


def _whole(node: Any) -> bool:
    return node is None or isinstance(node, Quantized | optax.MaskedNode)


@dataclasses.dataclass(frozen=True)
class Leaves:
    """The leaves of a parameters' tree, and where a transformation's state keeps what belongs to each.

    Attributes:
        tx: the transformation.
        treedef: of the parameters.
    """

    tx: optax.GradientTransformation
    treedef: Any

    @property
    def count(self) -> int:
        """The number of leaves."""
        return self.treedef.num_leaves

    def only(self, i: int, tree: Any) -> Any:
        """A tree with `optax.MaskedNode()` in place of all leaves but the i-th; what is no such tree as it is."""
        try:
            leaves = self.treedef.flatten_up_to(tree)
        except (ValueError, TypeError):
            return tree
        return self.treedef.unflatten([x if k == i else optax.MaskedNode() for k, x in enumerate(leaves)])

    def apart(self, state: optax.OptState) -> tuple[list[list[Any]], list[Any]]:
        """What a state keeps for each leaf, and what it keeps for none of them, a count say."""
        own: list[list[Any]] = [[] for _ in range(self.count)]
        shared: list[Any] = []
        self._map(lambda x, k: own[k].append(x), state, shared.append)
        return own, shared

    def together(self, like: optax.OptState, own: list[list[Any]], shared: list[Any]) -> optax.OptState:
        """The inverse: a state built as `like` is; where `own` has nothing for a leaf, that is left out."""
        parts, rest = [iter(part) for part in own], iter(shared)
        return self._map(lambda _, k: next(parts[k], optax.MaskedNode()), like, lambda _: next(rest))

    def _map(self, f: Callable[[Any, int], Any], state: optax.OptState, on_shared: Callable[[Any], Any]) -> Any:
        numbers = self.treedef.unflatten(range(self.count))

        def own(x: Any, k: int | None) -> Any:  # no number where the parameters have None
            return x if k is None else f(x, k)

        return optax.tree_utils.tree_map_params(
            self.tx, own, state, numbers, transform_non_params=on_shared, is_leaf=_whole
        )


def crossing(
    tx: optax.GradientTransformation, gradients: Tree, state: optax.OptState, params: Tree, **extra: Any
) -> str:
    """The first two leaves of which one's update depends on the other's gradient, in words; "" if there are none."""

    def updates(gradients: Tree) -> Tree:
        return optax.with_extra_args_support(tx).update(gradients, state, params, **extra)[0]

    closed, shapes = jax.make_jaxpr(updates, return_shape=True)(gradients)
    seen: dict[Any, frozenset[int]] = {v: frozenset([i]) for i, v in enumerate(closed.jaxpr.invars)}

    def sources(variables: Sequence[Any]) -> frozenset[int]:
        return frozenset().union(*(seen.get(v, frozenset()) for v in variables if not isinstance(v, Literal)))

    for equation in closed.jaxpr.eqns:
        found = sources(equation.invars)
        seen.update((v, found) for v in equation.outvars)
    names = [path_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(shapes)[0]]
    for i, variable in enumerate(closed.jaxpr.outvars):
        others = sources([variable]) - {i}
        if others:
            return f"the update of {names[i]} depends on the gradient of {names[min(others)]}"
    return ""
