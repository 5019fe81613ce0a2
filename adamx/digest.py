"""A digest of a tree of arrays: what was saved is what came back."""

import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from adamx.trees import Tree, path_name
from adamx.variables import flatten_with_path


def fingerprint(tree: Tree) -> str:
    """The SHA-256 of all paths, dtypes, shapes and bytes of a tree, as 64 hexadecimal digits.

    It is equal for a tree and its restored checkpoint, on any number of devices, for NumPy or JAX arrays, strongly or
    weakly typed. It differs if one bit of a leaf differs: for -0.0 and 0.0, and for two NaNs. Containers count by the
    paths of their leaves only: a tuple and a list, `optax.ScaleByAdamState` and `MomentsState`, a state that was
    restored as a dict of its fields, or one in `nnx.Optimizer` and its plain arrays have equal digests. None and
    `EmptyState()` have no leaves and do not count. `check_restored` tells whether a state fits its optimizer.

    Leaves are read one after the other: the host has a copy of one at a time.

    Args:
        tree: of arrays, Python numbers and typed PRNG keys, all of it on devices of this process.

    Returns:
        The digest.

    Raises:
        TypeError: a leaf that holds no numbers, or a traced one: it reads values, outside of jit.
        ValueError: an array with shards on devices of other processes.

    Example:
        >>> import jax, jax.numpy as jnp, numpy as np, adamx
        >>> state = adamx.adam(1e-3).init({"w": jnp.zeros(2)})
        >>> adamx.digest.fingerprint(state) == adamx.digest.fingerprint(jax.tree.map(np.asarray, state))
        True
        >>> adamx.digest.fingerprint(jnp.float32(0.0)) == adamx.digest.fingerprint(jnp.float32(-0.0))
        False
    """
    digest = hashlib.sha256()
    found, _ = flatten_with_path(tree)
    for keys, i in sorted((_keys(path), i) for i, (path, _) in enumerate(found)):
        dtype, values = _read(*found[i])
        digest.update(repr((keys, dtype, values.shape)).encode())
        digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _keys(path: Sequence[Any]) -> tuple[str, ...]:
    """A path as printed keys: sorted by them, a tuple of fields and a dict of them come in one order."""
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def _read(path: Sequence[Any], leaf: Any) -> tuple[str, np.ndarray]:
    """The name of a leaf's dtype and its values on the host, the lowest byte of a number first."""
    if isinstance(leaf, Tracer):
        raise TypeError(f"fingerprint reads values, got a traced array at {path_name(path)}: call it outside of jit")
    if not getattr(leaf, "is_fully_addressable", True):
        raise ValueError(
            f"fingerprint needs all of the array at {path_name(path)}, which has shards on devices of other processes: "
            "gather it with jax.experimental.multihost_utils.process_allgather(array, tiled=True)"
        )
    if isinstance(leaf, jax.Array):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return str(leaf.dtype), _gather(jax.random.key_data(leaf) if is_key else leaf)
    if isinstance(leaf, bool | int | float | complex) and not isinstance(leaf, np.generic):
        leaf = np.asarray(leaf, jnp.result_type(leaf))
    dtype = getattr(leaf, "dtype", None)
    if not isinstance(leaf, np.ndarray | np.generic) or dtype is None or dtype.hasobject or dtype.kind in "SU":
        raise TypeError(f"fingerprint needs an array of numbers at {path_name(path)}, got {type(leaf).__name__}")
    return dtype.name, np.asarray(leaf).astype(dtype.newbyteorder("<"), copy=False)


def _gather(array: jax.Array) -> np.ndarray:
    """An array on the host, read shard by shard: JAX may keep the copy that it makes of a sharded array."""
    shards = [shard for shard in array.addressable_shards if shard.replica_id == 0]
    if len(shards) == 1:
        return _read_shard(shards[0].data)
    values = np.empty(array.shape, array.dtype)
    for shard in shards:
        values[shard.index] = _read_shard(shard.data)
    return values


def _read_shard(shard: jax.Array) -> np.ndarray:
    """One shard, by way of a new array on the same buffer: an array keeps its copy as long as it lives."""
    return np.asarray(jax.make_array_from_single_device_arrays(shard.shape, shard.sharding, [shard]))
