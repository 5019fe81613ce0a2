"""`state_sharding`: what goes where, and what each device then keeps."""

from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import PartitionSpec as P

from adamx.sharding.placement import Mesh, entries, mesh_axes, own_specs, parts
from adamx.sharding.plan import abstract, make_plan, map_state
from adamx.sharding.region import shardings
from adamx.trees import Tree, nbytes, path_name
from adamx.variables import flatten_with_path


class LeafSharding(NamedTuple):
    """The sharding of the state of one leaf of the parameters.

    Attributes:
        spec: how it is split.
        size: its bytes.
        per_device: those on each device.
        whole: whether no axis could be split over the devices that share the data.
    """

    spec: P
    size: int
    per_device: int
    whole: bool


class StateSharding(NamedTuple):
    """The sharding of a state; prints as a table.

    Attributes:
        shardings: a tree like the state with a `NamedSharding` in the place of each array.
        leaves: by path of the parameters.
        rest: bytes of counts and of what else belongs to no leaf, whole on every device.
    """

    shardings: Tree
    leaves: dict[str, LeafSharding]
    rest: int

    @property
    def total(self) -> int:
        """Bytes of one whole state."""
        return sum(leaf.size for leaf in self.leaves.values()) + self.rest

    @property
    def per_device(self) -> int:
        """Bytes of it on each device."""
        return sum(leaf.per_device for leaf in self.leaves.values()) + self.rest

    @property
    def whole(self) -> dict[str, int]:
        """Bytes, by path, of what every device keeps although others have it."""
        return {name: leaf.per_device for name, leaf in self.leaves.items() if leaf.whole}

    def __str__(self) -> str:
        # What is split nowhere is P() or, from jax 0.12 on, P(None, ...).
        specs = {name: tuple(leaf.spec) if _mentioned(leaf.spec) else () for name, leaf in self.leaves.items()}
        rows = [(name, *leaf[1:3], f"{specs[name]}{', whole' * leaf.whole}") for name, leaf in self.leaves.items()]
        rows += [("everything else", self.rest, self.rest, ""), ("total", self.total, self.per_device, "")]
        width = max(len(name) for name, *_ in rows)
        lines = [f"{'leaf':{width}}  {'bytes':>16}  {'on each device':>16}  spec"]
        lines += [f"{name:{width}}  {size:16,}  {here:16,}  {spec}".rstrip() for name, size, here, spec in rows]
        return "\n".join(lines)


def state_sharding(
    tx: optax.GradientTransformation,
    params: optax.Params,
    mesh: Mesh,
    axis: str | tuple[str, ...] = "data",
    specs: Any = None,
) -> StateSharding:
    """Tells where `shard_state` puts each array of the state, and how many bytes each device has.

    Its shardings are what a checkpoint is restored to, and what jit takes as `in_shardings` or `out_shardings`.

    Args:
        tx: any transformation, with or without `shard_state` around it.
        params: arrays or `jax.ShapeDtypeStruct`; nothing is computed.
        mesh: the devices; a `jax.sharding.AbstractMesh` plans for those that one does not have.
        axis: as in `shard_state`.
        specs: as in `shard_state`; None: as the parameters are placed, whole if they are not.

    Returns:
        Shardings, and bytes by leaf.

    Raises:
        ValueError: as `shard_state` does.

    Example:
        >>> import jax, jax.numpy as jnp, adamx
        >>> mesh = jax.sharding.AbstractMesh((8,), ("data",))
        >>> params = {"w": jax.ShapeDtypeStruct((1000, 1000), "float32"), "b": jax.ShapeDtypeStruct((3,), "float32")}
        >>> print(adamx.sharding.state_sharding(adamx.adam(1e-3), params, mesh))
        leaf                        bytes    on each device  spec
        b                              24                24  (), whole
        w                       8,000,000         1,000,000  ('data', None)
        everything else                 4                 4
        total                   8,000,028         1,000,028
    """
    axes, shapes = mesh_axes(mesh, axis), abstract(params)
    plan = make_plan(tx, shapes, mesh, axes, own_specs(params, mesh, specs))
    found, treedef = flatten_with_path(shapes)
    state = jax.eval_shape(tx.init, shapes)

    def owner(stored: Any, k: int) -> Any:
        return jax.tree.map(lambda _: k, stored)  # pyright: ignore[reportUnknownLambdaType]

    owners = map_state(tx, owner, state, treedef, lambda _: -1)

    sizes, shares = [0] * (len(found) + 1), [0] * (len(found) + 1)  # the last one is for what belongs to no leaf
    for x, spec, k in zip(*map(jax.tree.leaves, (state, plan.state, owners)), strict=True):
        size = nbytes(x)
        sizes[k] += size
        shares[k] += size // parts(mesh, _mentioned(spec))
    leaves: dict[str, LeafSharding] = {}
    for (path, _), spec, size, share in zip(found, treedef.flatten_up_to(plan.shards), sizes, shares, strict=False):
        leaves[path_name(path)] = LeafSharding(spec, size, share, not set(_mentioned(spec)) & set(axes))
    return StateSharding(shardings(mesh, plan.state), leaves, sizes[-1])


def _mentioned(spec: P) -> list[str]:
    return [name for there in entries(spec, len(spec)) for name in there]
