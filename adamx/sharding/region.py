"""A function whose inside XLA places, on both kinds of meshes."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding

from adamx.sharding.placement import Mesh, is_explicit
from adamx.trees import Tree


def shardings(mesh: Mesh, specs: Tree) -> Tree:
    """A tree of `NamedSharding` from one of `PartitionSpec`."""
    return jax.tree.map(functools.partial(NamedSharding, mesh), specs)


def automatic(mesh: Mesh) -> Mesh:
    """The same devices, in a mesh whose axes are all Auto."""
    return jax.sharding.Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))


def constrain(mesh: Mesh, tree: Tree, specs: Tree) -> Tree:
    """The arrays of a tree, placed on a mesh of Auto axes."""
    return jax.tree.map(jax.lax.with_sharding_constraint, tree, shardings(mesh, specs))


def region(f: Callable[..., Any], mesh: Mesh, specs: Tree) -> Callable[..., Any]:
    """The function, called with and giving arrays of the mesh, but run with Auto axes inside.

    Args:
        f: from trees to a tree; leaves that are no arrays reach it as they are.
        mesh: the devices.
        specs: of what it gives.
    """
    if not is_explicit(mesh):
        return lambda *args: constrain(mesh, f(*args), specs)

    def call(*args: Any) -> Any:
        leaves, treedef = jax.tree.flatten(args)
        moving = [i for i, x in enumerate(leaves) if isinstance(x, jax.Array | np.ndarray | np.generic)]

        def inside(*arrays: Any) -> Any:
            full = [*leaves]
            for i, x in zip(moving, arrays, strict=True):
                full[i] = x
            return constrain(automatic(mesh), f(*treedef.unflatten(full)), specs)

        outside = shardings(mesh.abstract_mesh, specs)
        return _with_auto_axes(inside, outside)(*(leaves[i] for i in moving))

    return call


def _with_auto_axes(f: Callable[..., Any], out: Tree) -> Callable[..., Any]:
    if hasattr(jax.sharding, "auto_axes"):
        return jax.sharding.auto_axes(f, out_sharding=out)
    from jax.experimental import shard  # pyright: ignore  # noqa: PLC0415 (jax 0.6)

    return shard.auto_axes(f, out_shardings=out)
