"""Inside `jax.shard_map`: which arrays are shards of a leaf, and sums over the whole leaf.

Types tell there over which axes of the mesh an array varies (JAX's "vma" types). The counter of a state belongs to the
whole model. An array that varies over an axis over which its counter does not vary is a shard: sums go over that
axis. Where the counter varies too, each device trains a model of its own, and nothing is summed.

`shard_map(..., check_vma=False)` and `jax.pmap` turn these types off. There sums go over all axes: a mean over copies
of a leaf is the mean over one of them.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.typing import DTypeLike

from adamx import numerics

Axes = tuple[str, ...]
"""Names of axes of the mesh."""

UNNAMED = "_internal_pmap"
"""How JAX begins the name of the axis of a `jax.pmap` that was given none: its devices can share nothing."""


def varying(x: Any) -> frozenset[str]:
    """The axes of the mesh over which an array varies, by its type; none outside `jax.shard_map`."""
    return _type_varies(jax.typeof(x))


def vary_as(x: jax.Array, kind: Any) -> jax.Array:
    """An array that varies over the axes over which a type does: JAX 0.6 wants that of both branches of a `cond`."""
    missing = tuple(_type_varies(kind) - varying(x))
    if not missing:
        return x
    lax: Any = jax.lax
    return lax.pcast(x, missing, to="varying") if hasattr(lax, "pcast") else lax.pvary(x, missing)


def _type_varies(kind: Any) -> frozenset[str]:
    manual = getattr(kind, "manual_axis_type", None)  # jax 0.10; before, the type itself has the names
    return frozenset(getattr(kind, "vma", ()) if manual is None else manual.varying)


def manual_axes() -> Axes:
    """The axes of the mesh whose shards the program sees; none outside `jax.shard_map`."""
    mesh = jax.sharding.get_abstract_mesh()
    kinds = zip(mesh.axis_names, mesh.axis_types or (), strict=False)
    return tuple(name for name, kind in kinds if kind == AxisType.Manual and not name.startswith(UNNAMED))


def types_tell() -> bool:
    """Whether types tell what varies: outside of `shard_map`, or inside with its check."""
    axes = manual_axes()
    return not axes or bool(varying(jax.lax.axis_index(axes[0])))


def axes_of(own: frozenset[str], *arrays: Any) -> Axes:
    """The axes over which a leaf is split.

    Args:
        own: what the counter of the state varies over.
        *arrays: of the leaf.
    """
    axes = manual_axes()
    if not axes or not types_tell():
        return axes
    over = frozenset[str]().union(*map(varying, arrays)) - own
    return tuple(name for name in axes if name in over)


def total(x: jax.Array, axes: Axes) -> jax.Array:
    """The sum over the shards."""
    return jax.lax.psum(x, axes) if axes else x


def largest(x: jax.Array, axes: Axes) -> jax.Array:
    """The maximum over the shards."""
    return jax.lax.pmax(x, axes) if axes else x


def size(x: jax.Array, axes: Axes) -> int:
    """The elements of all shards."""
    return x.size * (jax.lax.psum(1, axes) if axes else 1)


def mean(x: jax.Array, axes: Axes) -> jax.Array:
    """The mean over the elements of all shards."""
    return total(jnp.sum(x), axes) / float(size(x, axes)) if axes else jnp.mean(x)


def share(flags: jax.Array, axes: Axes, dtype: DTypeLike) -> jax.Array:
    """The share of elements of all shards that are true, 0 where there are none."""
    return total(numerics.count(flags, dtype), axes) / float(max(size(flags, axes), 1))
