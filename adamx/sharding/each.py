"""An executor that sees shards: each device takes its own through the step."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec

from adamx.core.leaf import Leaf
from adamx.core.step import Execute
from adamx.core.work import Work
from adamx.norm import of_parts
from adamx.sharding.placement import Mesh, entries
from adamx.storage.dither import shard_offsets
from adamx.trees import Tree


def on_each(execute: Execute, mesh: Mesh, shards: Tree, places: tuple[int, ...] | None = None) -> Execute:
    """The executor on each device of a mesh.

    Args:
        execute: takes leaves through the step.
        mesh: the devices, in a mesh of Auto axes.
        shards: how the step is split, a tree with the `PartitionSpec` of each parameter; what belongs to a leaf is
            split as the parameter is.
        places: the numbers of these parameters among all of the step, see `Pass`.
    """
    specs = tuple(jax.tree.leaves(shards, is_leaf=lambda node: isinstance(node, PartitionSpec)))
    whole = PartitionSpec()

    def on_shards(work: Work) -> tuple[Leaf, ...]:
        here = tuple(specs[i] for i in work.places)
        leaves = tuple(Leaf(*[spec] * len(Leaf._fields))._replace(norms=whole) for spec in here)

        def local(numbers: Any, leaves: tuple[Leaf, ...], tails: Any) -> tuple[Leaf, ...]:
            given = work.replace(numbers=numbers, leaves=leaves, tails=tails)
            given = given if places is None else given.replace(places=tuple(places[i] for i in work.places))
            return on_own(execute, given, here)

        split = _shard_map(local, mesh, (whole, leaves, whole), leaves)
        return split(work.numbers, work.leaves, work.tails)

    return on_shards


def on_own(execute: Execute, work: Work, specs: tuple[PartitionSpec, ...]) -> tuple[Leaf, ...]:
    """The executor on the shards of one device: the dither knows where they begin, norms are those of all shards."""
    offsets = shard_offsets(tuple([leaf.param for leaf in work.leaves]), specs)
    return tuple(map(_with_norms_of_all, execute(work.replace(offsets=offsets)), specs))


def _with_norms_of_all(leaf: Leaf, spec: PartitionSpec) -> Leaf:
    """A leaf with the norms of all its shards."""
    if leaf.norms is None:
        return leaf
    axes = tuple(name for there in entries(spec, len(spec)) for name in there)
    return leaf._replace(norms=of_parts(leaf.norms[None], axes))


def _shard_map(f: Callable[..., Any], mesh: Mesh, given: Any, found: Any) -> Callable[..., Any]:
    if hasattr(jax, "shard_map"):
        return jax.shard_map(f, mesh=mesh, in_specs=given, out_specs=found, check_vma=False)
    from jax.experimental.shard_map import shard_map  # noqa: PLC0415 (jax 0.6.0)

    return shard_map(f, mesh=mesh, in_specs=given, out_specs=found, check_rep=False)
