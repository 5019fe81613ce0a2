"""The kernel on arrays that are sharded under plain `jit`: each device steps its shards.

How arrays are sharded is known when XLA has decided on it, behind JAX. It then asks for the program of one device.
"""

import contextlib
import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
from jax.experimental.custom_partitioning import ArrayMapping, SdyShardingRule, custom_partitioning
from jax.extend.core import Primitive
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from adamx.core.leaf import Leaf
from adamx.core.work import Work, by_xla
from adamx.sharding.each import on_own
from adamx.sharding.placement import parts
from adamx.storage import Int8
from adamx.storage.codec import is_quantized

CUT = (
    "an array of shape {} in {} shards along its last axis has moments in blocks of {}: blocks would be cut, so its "
    "last axis is gathered in each step. adamx.shard_state(tx) shards the state as it can be stepped"
)


def asks_for_mesh(step: Primitive) -> None:
    """Has JAX tell a primitive's lowering on which mesh a program runs; JAX has no public word for it."""
    with contextlib.suppress(ImportError):
        from jax._src.dispatch import prim_requires_devices_during_lowering  # noqa: PLC0415

        prim_requires_devices_during_lowering.add(step)


def has_typed_mesh(arrays: Sequence[Any]) -> bool:
    """Whether the types of arrays say how they are split: in `shard_map`, and on a mesh of Explicit axes.

    Such programs often have two kinds of one mesh, by `jax.sharding.auto_axes` say, where JAX wants one mesh to tell.
    """
    meshes = {jax.typeof(x).sharding.mesh for x in arrays}
    return any(kind != AxisType.Auto for mesh in meshes for kind in mesh.axis_types)


def can_split(platform: str, context: Any) -> bool:
    """Whether XLA asks for the program of one device, on a mesh that is known when JAX lowers.

    The compiler for TPUs never does: it has no emitter for what is partitioned by a custom rule.
    """
    mesh = getattr(context.axis_context, "abstract_mesh", None)
    shardy = getattr(jax.config, "jax_use_shardy_partitioner", True)
    return bool(platform != "tpu" and shardy and mesh is not None and mesh.shape)


def on_shards(step: Callable[[Work], tuple[Leaf, ...]], work: Work) -> tuple[Leaf, ...]:
    """The leaves after a step that each device takes on its shards.

    A leaf is stepped in as many shards as its moments or its parameter have, whichever is split most, so that no moment
    is gathered; unless blocks are cut.

    Args:
        step: takes leaves through the step, on one device.
        work: on leaves whose arrays have the axes of the parameter.
    """
    flat, treedef = jax.tree.flatten(work)

    def whole(*arrays: jax.Array) -> list[jax.Array]:
        return jax.tree.leaves(by_xla(treedef.unflatten(arrays)))

    def partition(mesh: Any, arguments: Any, _: Any) -> Any:
        given: Work = treedef.unflatten(arguments)
        specs = tuple([_spec_of(leaf, given, mesh) for leaf in given.leaves])

        def local(*arrays: jax.Array) -> list[jax.Array]:
            return jax.tree.leaves(on_own(step, treedef.unflatten(arrays), specs))

        def placed(tree: Any, spec: PartitionSpec) -> Any:
            flat, treedef = jax.tree.flatten(tree)
            return treedef.unflatten([NamedSharding(mesh, spec)] * len(flat))

        whole = placed(given, PartitionSpec())
        leaves = tuple([placed(leaf, spec) for leaf, spec in zip(given.leaves, specs, strict=True)])
        leaves = tuple([leaf._replace(norms=all.norms) for leaf, all in zip(leaves, whole.leaves, strict=True)])
        arguments = whole.replace(leaves=leaves)
        return mesh, local, jax.tree.leaves(arguments.stepped()), tuple(jax.tree.leaves(arguments))

    program = custom_partitioning(whole)
    program.def_partition(partition, decode_shardings=False, sharding_rule=_rule(work))
    return jax.tree.unflatten(jax.tree.structure(work.stepped()), program(*flat))


def _spec_of(leaf: Leaf, work: Work, mesh: Mesh) -> PartitionSpec:
    """How a leaf is split in the step: as the array of it that is split most, in whole blocks."""
    moments = [jax.tree.leaves(stored)[0] for stored in (leaf.mu, leaf.nu)]
    specs = [_written(x, mesh) for x in (*moments, leaf.param)]
    spec = max(specs, key=lambda spec: math.prod([parts(mesh, axes) for axes in spec]))
    shape, averages = leaf.param.shape, work.rule.averages
    for stored, codec in ((leaf.mu, averages.mu_codec), (leaf.nu, averages.nu_codec)):
        if is_quantized(stored) and len(spec) == len(shape):
            pieces, block = parts(mesh, spec[-1]), cast(Int8, codec).block_size
            if pieces > 1 and shape[-1] % (pieces * block):
                warnings.warn(CUT.format(shape, pieces, block), stacklevel=2)
                spec = spec[:-1]
    return PartitionSpec(*spec)


def _written(x: jax.ShapeDtypeStruct, mesh: Mesh) -> tuple[tuple[str, ...], ...]:
    """The axes of the mesh for each axis of an array; none where XLA has split it as no `PartitionSpec` says."""
    given: Any = x.sharding
    if given is None or given.is_fully_replicated:
        return ()
    names = [name for name, size in mesh.shape.items() if size > 1]
    groups = [group for n in range(len(names) + 1) for group in itertools.permutations(names, n)]
    with contextlib.suppress(ValueError):  # of shards that differ in size
        counts = [size // here for size, here in zip(x.shape, given.shard_shape(x.shape), strict=True)]
        for found in itertools.product(*[[group for group in groups if parts(mesh, group) == n] for n in counts]):
            used = [name for group in found for name in group]
            if len(used) == len(set(used)):
                written = NamedSharding(mesh, PartitionSpec(*found))
                if written.is_equivalent_to(given, len(x.shape)):
                    return found
    return ()


def _rule(work: Work) -> SdyShardingRule:
    """That all arrays of a leaf are split alike, but for the last axis of what blocks have in common."""

    def leaf(i: int, like: Leaf) -> Leaf:
        norms = None if like.norms is None else ArrayMapping("norms")

        def axes(x: Any) -> ArrayMapping:
            names = [f"axis{axis}" for axis in range(like.param.ndim)]
            if x.ndim > like.param.ndim:  # two numbers for each block along the last axis
                names = [*names[:-1], f"blocks{x.shape[-2]}", "numbers"]
            return ArrayMapping(*[f"leaf{i}{name}" for name in names])

        return jax.tree.map(axes, like._replace(norms=None))._replace(norms=norms)

    def mappings(tree: Any) -> tuple[ArrayMapping, ...]:
        return tuple(jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, ArrayMapping)))

    leaves = tuple([leaf(i, one) for i, one in enumerate(work.leaves)])
    flat, treedef = jax.tree.flatten(work)
    scalars: Work = treedef.unflatten([ArrayMapping()] * len(flat))
    named = scalars.replace(leaves=leaves)
    return SdyShardingRule(mappings(named), mappings(named.stepped()))
