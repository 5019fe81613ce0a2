"""Which axis of an array is split over which axes of a mesh."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from adamx.trees import Tree, path_name
from adamx.variables import map_with_path

Mesh = Any
"""A `jax.sharding.Mesh`; where only sizes matter, a `jax.sharding.AbstractMesh` as well."""


def parts(mesh: Mesh, axes: Sequence[str]) -> int:
    """Over how many devices these axes of a mesh go."""
    return math.prod(mesh.shape[name] for name in axes)


def entries(spec: P, ndim: int) -> list[tuple[str, ...]]:
    """The axes of the mesh for each axis of an array."""
    named = [() if e is None else e if isinstance(e, tuple) else (e,) for e in tuple(spec)]
    return [*named, *[()] * (ndim - len(named))]


def is_explicit(mesh: Mesh) -> bool:
    """Whether the types of arrays tell how they are placed on this mesh.

    Raises:
        ValueError: some of its axes are Auto and others are not, or some are Manual.
    """
    kinds = set(mesh.axis_types)
    if len(kinds) > 1 or AxisType.Manual in kinds:
        raise ValueError(f"the axes of the mesh must be all Auto or all Explicit, got {mesh.axis_types}")
    return kinds == {AxisType.Explicit}


def mesh_axes(mesh: Mesh, axis: Any) -> tuple[str, ...]:
    """The argument `axis` as names.

    Raises:
        ValueError: one that the mesh does not have.
    """
    axes = axis if isinstance(axis, tuple) else (axis,)
    for name in axes:
        if name not in mesh.shape:
            raise ValueError(f"axis must be one of the mesh's, {tuple(mesh.shape)}, or several of them, got {axis!r}")
    return axes


def with_axes(spec: P, shape: Sequence[int], mesh: Mesh, axes: Sequence[str], block: int = 1) -> P:
    """The spec of a parameter with further axes of the mesh where they divide an axis of the array.

    The first free axis that is divisible, else the first divisible one that is split already. The spec as it is where
    there is none, or where it has the axes already.

    Args:
        spec: of the parameter.
        shape: of the parameter.
        mesh: has the sizes.
        axes: what to add.
        block: how many neighbours in the last axis must stay together.
    """
    placed = entries(spec, len(shape))
    missing = tuple(name for name in axes if not any(name in there for there in placed))
    if not missing or 0 in shape:
        return spec
    for i in sorted(range(len(shape)), key=lambda i: bool(placed[i])):
        split = placed[i] + missing
        unit = block if i == len(shape) - 1 else 1
        if shape[i] % (parts(mesh, split) * unit) == 0:
            placed[i] = split
            return P(*(there[0] if len(there) == 1 else there or None for there in placed))
    return spec


def told(x: Any, mesh: Mesh) -> P | None:
    """How an array says that it is placed; None where it does not: not placed, or inside jit on a mesh of Auto axes.

    Raises:
        ValueError: it is split over another mesh.
    """
    if isinstance(x, jax.Array) and is_explicit(mesh):
        sharding: Any = jax.typeof(x).sharding
    else:
        sharding = None if isinstance(x, Tracer) else getattr(x, "sharding", None)
    if not isinstance(sharding, NamedSharding) or not sharding.mesh.shape:
        return None
    if dict(sharding.mesh.shape) != dict(mesh.shape):
        raise ValueError(f"placed on the mesh {dict(sharding.mesh.shape)}, not on {dict(mesh.shape)}")
    return sharding.spec


def own_specs(params: Tree, mesh: Mesh, specs: Any = None) -> Tree:
    """How the parameters are placed: as the specs say, else as they tell themselves, else whole on every device.

    Raises:
        ValueError: a parameter is placed otherwise than the specs say, or on another mesh.
    """

    def leaf(path: Any, p: Any, given: Any) -> P:
        spec: P | None = given.spec if isinstance(given, NamedSharding) else given
        try:
            found = told(p, mesh)
        except ValueError as error:
            raise ValueError(f"the parameter at {path_name(path)} is {error}") from None
        if spec is not None and found is not None and not _same(spec, found, np.ndim(p), mesh):
            raise ValueError(f"the parameter at {path_name(path)} is placed as {found}, specs has {spec} for it")
        return next((known for known in (spec, found) if known is not None), P())

    def below(path: Any, given: Any, params: Tree) -> Tree:
        def at(rest: Any, p: Any) -> P:
            return leaf((*path, *rest), p, given)

        return map_with_path(at, params)

    if specs is None:
        return below((), None, params)
    return jax.tree_util.tree_map_with_path(below, specs, params, is_leaf=_is_spec)


def _is_spec(node: Any) -> bool:
    return isinstance(node, P | NamedSharding)


def _same(a: P, b: P, ndim: int, mesh: Mesh) -> bool:
    """Whether two specs place an array in the same way; axes of one device do nothing."""
    left, right = (
        [tuple(name for name in there if mesh.shape[name] > 1) for there in entries(spec, ndim)] for spec in (a, b)
    )
    return left == right
