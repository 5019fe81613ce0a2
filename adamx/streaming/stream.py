"""A step while arrays move: gradients to where the state is, parameters back to where they were."""

import functools
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from adamx.streaming.parts import Parts
from adamx.streaming.pieces import Trees
from adamx.streaming.shards import Device, common_devices, like, side_by_side, to_host, to_shards
from adamx.streaming.whole import Whole
from adamx.trees import Tree


class Memory:
    """What is known beside the state: compiled programs, and copies of parameters. A pickled one comes back empty."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}
        self._copies: dict[int, tuple[Any, jax.Array]] = {}

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What was made for a key."""
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def keep(self, p: jax.Array, copy: jax.Array) -> None:
        """Keeps the copy of a parameter for as long as the parameter lives."""
        key, copies = id(p), self._copies

        def forget(gone: Any) -> None:
            if key in copies and copies[key][0] is gone:
                del copies[key]

        copies[key] = weakref.ref(p, forget), copy

    def pop(self, p: jax.Array) -> jax.Array | None:
        """The copy of a parameter, to be used up; None if there is none."""
        alive, copy = self._copies.get(id(p), (None, None))
        if alive is None or alive() is not p:
            return None
        del self._copies[id(p)]
        return copy

    def __reduce__(self) -> Any:
        return Memory, ()


class Stream:
    """Takes arrays to the host and parameters back.

    Args:
        gradients: of the step.
        params: of the step.
        host: the device of the state.
        memory: of the copies of parameters.
        donate: whether parameters are used up.
    """

    def __init__(self, gradients: Tree, params: Tree, host: Device, memory: Memory, donate: bool) -> None:
        counts = Counter(map(id, jax.tree.leaves((gradients, params))))
        self.host, self.memory = host, memory
        self.kept = {key for key, count in counts.items() if count > 1 or not donate}
        for g in jax.tree.leaves(gradients):
            if _device(g).platform != host.platform:  # all are queued at once and arrive in this order
                g.copy_to_host_async()

    def gradients(self, given: list[jax.Array], params: list[jax.Array]) -> list[jax.Array]:
        """Gradients on the host, with the elements that this process holds of their parameters."""
        return to_host(like(given, params), self.host)

    def down(self, params: list[jax.Array]) -> list[jax.Array]:
        """Parameters on the host, in arrays that may be written."""
        copies = {i: self.memory.pop(p) for i, p in enumerate(params)}
        missing = [i for i, copy in copies.items() if copy is None]
        sent = to_host([params[i] for i in missing], self.host, may_alias=False)
        copies.update(zip(missing, sent, strict=True))
        return [copies[i] for i in range(len(params))]  # pyright: ignore[reportReturnType]

    def up(self, old: list[jax.Array], new: list[jax.Array]) -> list[jax.Array]:
        """Parameters after the step where they were before, in the memory that those give back."""
        places = [jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=p.sharding) for p in old]
        for p in old:
            if id(p) not in self.kept:
                p.delete()
        moved = to_shards(new, places)
        for p, copy in zip(moved, new, strict=True):
            self.memory.keep(p, copy)
        return moved


def _device(x: Any) -> Device:
    return next(iter(x.devices()))


def calculated(parts: Parts | Whole, flat: list[jax.Array], host: Device) -> list[jax.Array]:
    """The numbers of a step, on the host.

    They are calculated where the gradients are that they need, over the shards of all processes.

    Args:
        parts: the step.
        flat: its inputs.
        host: the device of the state.
    """
    devices = common_devices([flat[i] for i in parts.beside], host)
    return to_host(parts.numbers(side_by_side([flat[i] for i in parts.needed], devices)), host)


def step_parts(parts: Parts, flat: list[jax.Array], stream: Stream) -> list[jax.Array]:
    """The leaves of parameters and state after a step in parts.

    Args:
        parts: the step.
        flat: its inputs.
        stream: moves them.
    """
    numbers = calculated(parts, flat, stream.host)
    conditions = numbers[: parts.conditions]
    clean = functools.reduce(jnp.logical_and, conditions) if conditions else None
    shared = numbers[parts.conditions : parts.conditions + parts.shared]
    after: dict[int, jax.Array] = {}

    def arrive(k: int) -> list[jax.Array]:
        group = parts.groups[k]
        return stream.gradients([flat[i] for i in group.gradients], [flat[i] for i in group.params])

    def go_back(k: int) -> None:
        numbers = parts.groups[k].params
        after.update(zip(numbers, stream.up([flat[i] for i in numbers], [after[i] for i in numbers]), strict=True))

    gradients = arrive(0)
    for k, group in enumerate(parts.groups):
        here = dict(zip(group.params, stream.down([flat[i] for i in group.params]), strict=True))
        before = [here[i] if i in here else flat[i] for i in group.changed]
        after.update(zip(group.changed, group.program(clean, shared, gradients, before), strict=True))
        gradients = arrive(k + 1) if k + 1 < len(parts.groups) else []  # while this group steps
        if k:
            go_back(k - 1)
    go_back(len(parts.groups) - 1)
    places = {"stepped": after, "input": flat, "number": numbers}
    return [places[source.kind][source.number] for source in parts.results]


def stepped(plan: Parts | Whole, trees: Trees, stream: Stream) -> tuple[Tree, Tree]:
    """Parameters and state after a step in parts, or of the whole tree; arguments as of `step_whole`."""
    if isinstance(plan, Whole):
        return step_whole(plan, trees, stream)
    return jax.tree.structure(trees[1:3]).unflatten(step_parts(plan, jax.tree.leaves(trees), stream))


def step_whole(whole: Whole, trees: Trees, stream: Stream) -> tuple[Tree, Tree]:
    """Parameters and state after a step of the whole tree on the host.

    Args:
        whole: the step.
        trees: its inputs.
        stream: moves them.
    """
    gradients, params, state, extra = trees
    leaves, treedef = jax.tree.flatten(params)
    numbers = calculated(whole, jax.tree.leaves(trees), stream.host)
    found, of_gradients = jax.tree.flatten(gradients)
    sent, others = to_host((of_gradients.unflatten(like(found, leaves)), extra), stream.host)
    moved, after = whole.run(treedef.unflatten(stream.down(leaves)), state, sent, others, numbers)
    return treedef.unflatten(stream.up(leaves, jax.tree.leaves(moved))), after
