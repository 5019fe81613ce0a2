"""Groups of leaves that step together, each in a program of its own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from adamx.core.leaf import Leaf
from adamx.core.step import Execute
from adamx.core.work import Work

GROUP = 2**21
"""Elements from which on a group of leaves is full: a step on them takes longer than to start it."""


class Group(NamedTuple):
    """Leaves that step together.

    Attributes:
        gradients: their numbers among the inputs of the step.
        params: the numbers of their parameters there.
        changed: the numbers of all arrays there that the step changes, the last first.
        program: from a condition or None, the shared numbers, gradients and arrays before to arrays after.
    """

    gradients: list[int]
    params: list[int]
    changed: list[int]
    program: Callable[..., list[jax.Array]]


def before(work: Work) -> tuple[Leaf, ...]:
    """The leaves without their gradients."""
    return work.stepped()


def shared_numbers(work: Work) -> list[Any]:
    """What all leaves share, in a flat list."""
    return jax.tree.leaves(work.replace(leaves=()))


def groups_of(work: Work, first: list[int], stepping: list[Any], execute: Execute, donate: bool) -> list[Group]:
    """The groups of a step.

    Args:
        work: of all leaves; what this process has of them begins at its offsets.
        first: where gradients, parameters, state and extra arguments begin among the inputs of the step.
        stepping: the number of the input that each array of `before(work)` is, in their order.
        execute: takes the leaves of a group through the step.
        donate: whether a group writes in place.
    """
    numbered = jax.tree.unflatten(jax.tree.structure(before(work)), stepping)
    programs: dict[Any, Callable[..., list[jax.Array]]] = {}
    groups: list[Group] = []
    for leaves in _full([jnp.size(leaf.param) for leaf in work.leaves]):
        part = work.take(leaves)
        offsets, part = part.offsets, part.replace(offsets=None, places=tuple(range(len(leaves))))
        kinds = tuple((x.shape, x.dtype) for x in jax.tree.leaves(part.leaves))
        constants = tuple(None if isinstance(x, Tracer) else x for x in shared_numbers(part))
        key = (jax.tree.structure(part), kinds, offsets)  # alike for groups of equal shapes
        if key not in programs:
            programs[key] = _program(part, offsets, constants, execute, donate)
        changed = jax.tree.leaves([numbered[i] for i in leaves])[::-1]
        params = [numbered[i].param for i in leaves]
        groups.append(Group([first[0] + i for i in leaves], params, changed, programs[key]))
    return groups


def _full(sizes: list[int]) -> list[list[int]]:
    """Neighbours in groups of some size."""
    groups: list[list[int]] = []
    room = 0
    for i, size in enumerate(sizes):
        if room <= 0:
            groups.append([])
            room = GROUP
        groups[-1].append(i)
        room -= size
    return groups


def _program(
    part: Work, offsets: Any, constants: tuple[Any, ...], execute: Execute, donate: bool
) -> Callable[..., list[jax.Array]]:
    """The step of one group, from its arrays before to those after.

    Both are in reverse: the compiler of jax 0.6 aborts on a program whose result is that of the kernel as it is.
    """
    numbers, leaves = jax.tree.structure(part.replace(leaves=())), jax.tree.structure(before(part))

    def run(clean: Any, shared: list[Any], gradients: list[Any], arrays: list[Any]) -> list[jax.Array]:
        known = [x if constant is None else constant for x, constant in zip(shared, constants, strict=True)]
        pairs = zip(leaves.unflatten(arrays[::-1]), gradients, strict=True)
        here = tuple(leaf._replace(gradient=g) for leaf, g in pairs)
        given = numbers.unflatten(known).replace(leaves=here, offsets=offsets)

        def step() -> list[jax.Array]:
            return jax.tree.leaves(execute(given))[::-1]

        return step() if clean is None else jax.lax.cond(clean, step, lambda: arrays)

    return jax.jit(run, donate_argnums=3 if donate else ())
