"""A step while arrays move: gradients to where the state is, parameters back to where they were."""

import functools
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from adamx.core.step import Execute
from adamx.streaming.parts import Parts, Take
from adamx.streaming.shards import Device, common_devices, side_by_side, to_host, to_shards
from adamx.trees import Tree

Whole = Callable[[Tree, Tree, Tree, Any], tuple[Tree, Tree]]
"""The compiled step of a whole tree, from parameters, state, gradients and extra arguments to parameters and state."""


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

    def gradients(self, given: list[jax.Array]) -> list[jax.Array]:
        """Gradients on the host."""
        return to_host(given, self.host)

    def down(self, params: list[jax.Array]) -> list[jax.Array]:
        """Parameters on the host, in arrays that may be written."""
        copies = {i: self.memory.pop(p) for i, p in enumerate(params)}
        missing = [i for i, copy in copies.items() if copy is None]
        sent = to_host([params[i] for i in missing], self.host, may_alias=False)
        copies.update(zip(missing, sent, strict=True))
        return [copies[i] for i in range(len(params))]  # pyright: ignore[reportReturnType]

    def up(self, old: list[jax.Array], new: list[jax.Array]) -> list[jax.Array]:
        """Parameters after the step where they were before, in the memory that those give back."""
        places = [p.sharding for p in old]
        for p in old:
            if id(p) not in self.kept:
                p.delete()
        moved = to_shards(new, places)
        for p, copy in zip(moved, new, strict=True):
            self.memory.keep(p, copy)
        return moved


def _device(x: Any) -> Device:
    return next(iter(x.devices()))


def step_parts(parts: Parts, flat: list[jax.Array], stream: Stream) -> list[jax.Array]:
    """The leaves of parameters and state after a step in parts.

    Args:
        parts: the step.
        flat: its inputs.
        stream: moves them.
    """
    devices = common_devices([flat[i] for i in parts.beside], stream.host)
    given = side_by_side([flat[i] for i in parts.needed], devices)
    numbers = to_host(parts.numbers(given), stream.host)
    conditions = numbers[: parts.conditions]
    clean = functools.reduce(jnp.logical_and, conditions) if conditions else None
    shared = numbers[parts.conditions : parts.conditions + parts.shared]
    after: dict[int, jax.Array] = {}

    def arrive(k: int) -> list[jax.Array]:
        return stream.gradients([flat[i] for i in parts.groups[k].gradients])

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


def whole(take: Take, execute: Execute, donate: bool) -> Whole:
    """The compiled step of a whole tree.

    Args:
        take: the step.
        execute: takes the leaves through it.
        donate: whether the state is written in place.
    """

    def run(params: Tree, state: Tree, gradients: Tree, extra: Any) -> tuple[Tree, Tree]:
        return take(gradients, params, state, extra, execute, None)

    return jax.jit(run, donate_argnums=(0, 1) if donate else 0)


def step_whole(run: Whole, trees: tuple[Tree, Tree, Tree, Any], stream: Stream) -> tuple[Tree, Tree]:
    """Parameters and state after a step of the whole tree on the host.

    Args:
        run: the step.
        trees: gradients, parameters, state and extra arguments.
        stream: moves them.
    """
    gradients, params, state, extra = trees
    leaves, treedef = jax.tree.flatten(params)
    sent, others = to_host((gradients, extra), stream.host)
    moved, after = run(treedef.unflatten(stream.down(leaves)), state, sent, others)
    return treedef.unflatten(stream.up(leaves, jax.tree.leaves(moved))), after
