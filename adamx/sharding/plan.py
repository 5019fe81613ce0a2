"""Where each array of an optimizer's state goes, from where the parameters are."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import PartitionSpec as P

from adamx.sharding.placement import Mesh, entries, parts, with_axes
from adamx.storage.blocks import check_whole, size_of
from adamx.storage.codec import Quantized
from adamx.trees import Tree, path_name
from adamx.variables import bare, flatten_with_path


class Plan(NamedTuple):
    """Trees of `PartitionSpec`.

    Attributes:
        params: where the parameters are.
        shards: where the step works: the same with the data axis.
        state: where the state is kept.
    """

    params: Tree
    shards: Tree
    state: Tree


def abstract(params: Tree) -> Tree:
    """Shapes and dtypes alone: types that tell a placement would be in the way of a codec's blocks."""

    def leaf(p: Any) -> Any:
        return jax.ShapeDtypeStruct(np.shape(p), p.dtype) if hasattr(p, "dtype") else p

    return jax.tree.map(leaf, params)


def make_plan(tx: optax.GradientTransformation, params: Tree, mesh: Mesh, axes: Sequence[str], own: Tree) -> Plan:
    """The plan for a transformation.

    Args:
        tx: the transformation.
        params: its parameters, abstract.
        mesh: the devices.
        axes: of the mesh, over which the state is split.
        own: where the parameters are, a tree of `PartitionSpec`.

    Raises:
        ValueError: shards of a parameter would cut the blocks of its moments.
    """
    found, treedef = flatten_with_path(params)
    specs, state = treedef.flatten_up_to(own), jax.eval_shape(tx.init, params)
    blocks = blocks_of(tx, state, treedef)
    shards: list[P] = []
    for (path, p), spec, block in zip(found, specs, blocks, strict=True):
        shape = np.shape(p)
        cut = entries(spec, len(shape))[-1] if shape else ()
        if cut:
            check_whole(path_name(path), block, shape[-1], cut, parts(mesh, cut))
        shards.append(with_axes(spec, shape, mesh, axes, block))

    def kept(stored: Any, k: int) -> Any:
        def spec(x: Any) -> P:
            whole = isinstance(stored, Quantized) or np.shape(x) == np.shape(found[k][1])
            return shards[k] if whole else P()

        return jax.tree.map(spec, stored)

    return Plan(own, treedef.unflatten(shards), map_state(tx, kept, state, treedef, lambda _: P()))


def map_state(
    tx: optax.GradientTransformation,
    f: Callable[[Any, int], Any],
    state: optax.OptState,
    treedef: Any,
    on_others: Callable[[Any], Any],
) -> Any:
    """A state with `f` of what it keeps for a leaf, and the number of that leaf, in its place.

    Args:
        tx: made the state.
        f: gets an array or a `Quantized`.
        state: a tree of arrays or their shapes.
        treedef: of the parameters.
        on_others: gets what the state keeps for no leaf, a count say.
    """

    def own(stored: Any, k: int | None) -> Any:
        return stored if k is None or stored is None or isinstance(stored, optax.MaskedNode) else f(stored, bare(k))

    numbers = treedef.unflatten(range(treedef.num_leaves))
    return optax.tree_utils.tree_map_params(tx, own, state, numbers, transform_non_params=on_others, is_leaf=_is_whole)


def _is_whole(node: Any) -> bool:
    return node is None or isinstance(node, Quantized | optax.MaskedNode)


def blocks_of(tx: optax.GradientTransformation, state: optax.OptState, treedef: Any) -> list[int]:
    """How many neighbours in the last axis of each leaf share a number of their moments; 1 where none do."""
    blocks = [1] * treedef.num_leaves

    def widest(stored: Any, k: int) -> Any:
        if isinstance(stored, Quantized):
            blocks[k] = max(blocks[k], size_of(stored.codes.shape[-1], stored.scales.shape[-2]))
        return stored

    map_state(tx, widest, state, treedef, lambda x: x)
    return blocks
