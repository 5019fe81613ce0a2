"""Leaves with shards on several devices: joined on the host, cut again, and side by side for one program.

Of a leaf with shards on several processes each process joins and cuts its own.
"""

import functools
import math
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from adamx.sharding.region import automatic
from adamx.trees import Tree

Device = Any
"""A `jax.Device`."""

Box = tuple[tuple[int, int], ...]
"""For each axis of an array where a part of it begins and ends."""

ALIGNMENT = 64
"""XLA takes an array of NumPy into its CPU memory without a copy if it begins at a multiple of so many bytes."""


def is_split(x: Any) -> bool:
    """Whether an array lies on more than one device."""
    return isinstance(x, jax.Array) and len(x.sharding.device_set) > 1


def box(x: Any) -> Box:
    """The elements of an array that the devices of this process hold.

    Args:
        x: an array, or a `jax.ShapeDtypeStruct`; without a sharding it is whole.

    Raises:
        ValueError: they are none, or no box, or another number of shards than in other processes.
    """
    shape, sharding = np.shape(x), getattr(x, "sharding", None)
    if jax.process_count() == 1 or isinstance(x, Tracer) or sharding is None or sharding.is_fully_addressable:
        return tuple((0, n) for n in shape)
    return _box(sharding, shape)


@functools.lru_cache(maxsize=4096)
def _box(sharding: Any, shape: tuple[int, ...]) -> Box:
    held: dict[int, set[Box]] = {}
    for device, index in sharding.devices_indices_map(shape).items():
        held.setdefault(device.process_index, set()).add(_bounds(index, shape))
    own = held.get(jax.process_index(), set())
    axes = zip(*own, strict=True)
    found = tuple((min(begin for begin, _ in axis), max(end for _, end in axis)) for axis in axes)
    if not own or sum(map(_size, own)) != _size(found) or len(set(map(len, held.values()))) > 1:
        raise ValueError(
            f"this process has the shards {', '.join(map(written, sorted(own))) or 'of no device'} of an array, "
            "adamx.on_host needs that they form one box, and as many shards in each process: order the devices of the "
            "mesh by process, as jax.make_mesh does, or keep the state on devices, adamx.shard_state"
        )
    return found


def written(found: Box) -> str:
    """A box as an index is written, [0:8, 0:64]."""
    return "[" + ", ".join(f"{begin}:{end}" for begin, end in found) + "]"


def lies_apart(x: Any) -> bool:
    """Whether other processes hold elements of an array that this one does not."""
    return box(x) != tuple((0, n) for n in np.shape(x))


def to_host(tree: Tree, host: Device, may_alias: bool | None = None) -> Tree:
    """A tree of arrays on the host, with all that this process holds. Shards are joined there: no accelerator gathers.

    Args:
        tree: of arrays.
        host: the device.
        may_alias: as in `jax.device_put`, of arrays on one device.
    """
    return jax.device_put(jax.tree.map(_joined, tree), host, may_alias=may_alias)


def like(arrays: list[jax.Array], others: list[jax.Array]) -> list[Any]:
    """Of some arrays those elements that this process holds of others, in the memory of NumPy if they are not all."""
    wanted = zip(map(box, arrays), map(box, others), strict=True)
    return [
        x if here == own else np.asarray(_joined(x))[_moved(own, here)]
        for x, (here, own) in zip(arrays, wanted, strict=True)
    ]


def to_shards(leaves: list[jax.Array], places: list[Any]) -> list[jax.Array]:
    """Copies of leaves of the host, each with the shape and sharding of a place. Each device gets its shard alone."""
    moved: dict[int, jax.Array] = {}
    whole = [i for i, place in enumerate(places) if len(place.sharding.device_set) == 1]
    copies = jax.device_put([leaves[i] for i in whole], [places[i].sharding for i in whole], may_alias=False)
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
    here = box(x)
    joined = _empty(tuple(end - begin for begin, end in here), x.dtype)
    for shard in shards:
        joined[_moved(_bounds(shard.index, x.shape), here)] = np.asarray(shard.data)
    return joined


def _cut(x: jax.Array, place: Any) -> jax.Array:
    values, here = np.asarray(x), box(place)  # a view: x can be written in place once nothing holds it
    shared = next(iter(place.sharding.device_set)).platform == "cpu"  # XLA takes views there without a copy

    def part(index: Any) -> Any:
        given = values[_moved(_bounds(index, place.shape), here)]
        if not shared:
            return given
        own = _empty(given.shape, values.dtype)
        own[...] = given
        return own

    return jax.make_array_from_callback(place.shape, place.sharding, part)


def _bounds(index: Any, shape: tuple[int, ...]) -> Box:
    """The index of a shard as a box."""
    return tuple(axis.indices(n)[:2] for axis, n in zip(index, shape, strict=True))


def _moved(inner: Box, outer: Box) -> tuple[slice, ...]:
    """Where a box is in another one around it."""
    return tuple(slice(begin - first, end - first) for (begin, end), (first, _) in zip(inner, outer, strict=True))


def _size(found: Box) -> int:
    return math.prod(end - begin for begin, end in found)


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
