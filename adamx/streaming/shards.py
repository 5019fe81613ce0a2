"""Leaves with shards on several devices: joined on the host, cut again, and side by side for one program."""

import math
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from adamx.sharding.region import automatic
from adamx.trees import Tree

Device = Any
"""A `jax.Device`."""

ALIGNMENT = 64
"""XLA takes an array of NumPy into its CPU memory without a copy if it begins at a multiple of so many bytes."""


def is_split(x: Any) -> bool:
    """Whether an array lies on more than one device."""
    return isinstance(x, jax.Array) and len(x.sharding.device_set) > 1


def is_held(x: Any) -> bool:
    """Whether the devices of this process hold all elements of an array."""
    return not is_split(x) or x.is_fully_addressable or sum(s.data.size for s in _shards(x)) == x.size


def to_host(tree: Tree, host: Device, may_alias: bool | None = None) -> Tree:
    """A tree of whole arrays on the host. Shards are joined there: no accelerator gathers them.

    Args:
        tree: of arrays, each held by the devices of this process.
        host: the device.
        may_alias: as in `jax.device_put`, of arrays on one device.
    """
    return jax.device_put(jax.tree.map(_joined, tree), host, may_alias=may_alias)


def to_shards(leaves: list[jax.Array], places: list[Any]) -> list[jax.Array]:
    """Copies of leaves of the host, with these shardings. Each device gets its shard alone."""
    moved: dict[int, jax.Array] = {}
    whole = [i for i, place in enumerate(places) if len(place.device_set) == 1]
    copies = jax.device_put([leaves[i] for i in whole], [places[i] for i in whole], may_alias=False)
    moved.update(zip(whole, copies, strict=True))
    return [moved[i] if i in moved else _cut(x, place) for i, (x, place) in enumerate(zip(leaves, places, strict=True))]


def common_devices(arrays: list[jax.Array], host: Device) -> tuple[Device, ...]:
    """The devices that all of some arrays lie on; the host, if they lie on different ones."""
    found = {_devices(x) for x in arrays}
    return found.pop() if len(found) == 1 and None not in found else (host,)  # pyright: ignore[reportReturnType]


def side_by_side(arrays: list[jax.Array], devices: tuple[Device, ...]) -> list[jax.Array]:
    """Arguments of one program on these devices. Arrays with shards there stay as they are, all others go there whole.

    Meshes become such of Auto axes: the program is recorded without placements.
    """
    return [_beside(x, devices) for x in arrays]


def no_mesh() -> AbstractContextManager[Any]:
    """Inside, no mesh is set: programs run where their arguments are."""
    empty = Mesh(np.empty((), object), ())
    return jax.set_mesh(empty) if hasattr(jax, "set_mesh") else jax.sharding.use_mesh(empty)  # pyright: ignore


def _shards(x: jax.Array) -> list[Any]:
    """The shards of this process, one of each that are copies of each other."""
    return list({str(shard.index): shard for shard in reversed(x.addressable_shards)}.values())


def _joined(x: Any) -> Any:
    """An array on one device or in the memory of NumPy."""
    if not is_split(x):
        return x
    shards = _shards(x)
    if len(shards) == 1:
        return shards[0].data
    whole = _empty(x.shape, x.dtype)
    for shard in shards:
        whole[shard.index] = np.asarray(shard.data)
    return whole


def _cut(x: jax.Array, place: Any) -> jax.Array:
    values = np.asarray(x)  # a view: x can be written in place once nothing holds it
    shared = next(iter(place.device_set)).platform == "cpu"  # XLA takes views there without a copy

    def part(index: Any) -> Any:
        if not shared:
            return values[index]
        own = _empty(values[index].shape, values.dtype)
        own[...] = values[index]
        return own

    return jax.make_array_from_callback(x.shape, place, part)


def _empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """An array of NumPy that XLA takes without a copy."""
    size = math.prod(shape) * dtype.itemsize
    room = np.empty(size + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + size].view(dtype).reshape(shape)


def _devices(x: jax.Array) -> tuple[Device, ...] | None:
    """The devices of an array in the order of its mesh; None where it has none."""
    if not is_split(x):
        return tuple(x.devices())
    mesh: Any = getattr(x.sharding, "mesh", None)
    return None if mesh is None else tuple(mesh.devices.flat)


def _beside(x: jax.Array, devices: tuple[Device, ...]) -> jax.Array:
    if _devices(x) != devices:
        if len(devices) == 1:
            return jax.device_put(_joined(x), devices[0])
        everywhere = NamedSharding(Mesh(np.array(devices), ("all",)), PartitionSpec())
        return jax.make_array_from_callback(x.shape, everywhere, np.asarray(_joined(x)).__getitem__)
    if len(devices) == 1:
        return x
    sharding: Any = x.sharding
    place = NamedSharding(automatic(sharding.mesh), sharding.spec)
    return jax.make_array_from_single_device_arrays(x.shape, place, [shard.data for shard in x.addressable_shards])
