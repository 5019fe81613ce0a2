"""A step in parts: the numbers that all leaves share, then the leaves, group by group, in programs of their own.

The step is recorded once, with an executor that only notes which arrays it is given. What it needs beside them, bias
corrections, the learning rate, a factor of clipping, becomes one program. Each group of leaves becomes another.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

from adamx.core.guarded import Branch
from adamx.core.leaf import Leaf
from adamx.core.step import Execute
from adamx.core.work import Work
from adamx.kernels.execute import small_of
from adamx.streaming.groups import Group, before, groups_of, shared_numbers
from adamx.streaming.pieces import Inputs
from adamx.trees import Tree

SMALL = 1024
"""Elements of the state that may be copied to where the gradients are."""

Take = Callable[[Tree, Tree, Tree, Any, Execute, Branch | None], tuple[Tree, Tree]]
"""From gradients, parameters, state, extra arguments, an executor and a branch to parameters and state."""


class Source(NamedTuple):
    """Where an array after the step comes from.

    Attributes:
        kind: "stepped": an input after its step; "input": an input as it is; "number": one of `Parts.numbers`.
        number: its place there.
    """

    kind: str
    number: int


@dataclasses.dataclass(frozen=True)
class Parts:
    """A step in parts. Its inputs are the leaves of gradients, parameters, state and extra arguments, in this order.

    Attributes:
        numbers: from the inputs in `needed` to conditions, what all groups share, and what else the state keeps.
        needed: inputs by number.
        beside: those of them that are gradients or parameters.
        conditions: how many of the first numbers are conditions: all must be true, or no leaf steps.
        shared: how many of the next numbers all groups share.
        groups: of leaves.
        results: for each leaf of parameters and state after the step, where it comes from.
    """

    numbers: Callable[[list[Any]], list[jax.Array]]
    needed: list[int]
    beside: list[int]
    conditions: int
    shared: int
    groups: list[Group]
    results: list[Source]


class _Recorder:
    """The executor and the branch of a step that is only recorded."""

    def __init__(self) -> None:
        self.work: Work | None = None
        self.calls = 0
        self.small: tuple[bool, ...] = ()
        self.stepped: list[Any] = []
        self.conditions: list[Any] = []
        self.origin: dict[int, Any] = {}

    def execute(self, work: Work) -> tuple[Leaf, ...]:
        self.calls += 1
        flat, treedef = jax.tree.flatten(before(work))
        self.work, self.small = work, small_of(work)
        self.stepped = list(jax.lax.optimization_barrier(tuple(flat)))  # arrays that no equation makes otherwise
        self.origin = {id(new): old for new, old in zip(self.stepped, flat, strict=True)}
        return treedef.unflatten(self.stepped)

    def branch(self, clean: jax.Array, take: Any, keep: Any, state: Any) -> tuple[Tree, Any]:
        """The program of a group chooses for its leaves; all else is chosen here."""
        self.conditions.append(clean)
        moved, after = take(state)

        def chosen(new: Any, old: Any) -> Any:
            if new is old or self.origin.get(id(new)) is old:
                return new
            return either(clean, new, old)

        return jax.tree.map(chosen, (moved, after), (keep(moved), state))


def either(clean: Any, new: Any, old: Any) -> jax.Array:
    """An array after a step that is taken, or before it, in the dtype of the new one."""
    return jnp.where(clean, new, jnp.asarray(old).astype(jnp.result_type(new)))


def in_parts(take: Take, given: Inputs, execute: Execute, donate: bool) -> Parts | None:
    """A step in parts, or None where it must be taken as a whole.

    Args:
        take: the step.
        given: its inputs.
        execute: takes the leaves of a group through the step.
        donate: whether groups write in place.
    """
    (inputs, treedef), recorder = jax.tree.flatten(given.whole), _Recorder()
    rows: list[int] = []

    def recorded(*inputs: Any) -> list[Any]:
        gradients, params, state, extra = treedef.unflatten(inputs)
        moved, after = take(gradients, params, state, extra, recorder.execute, recorder.branch)
        work = recorder.work
        if work is None:
            return []
        gradients = [leaf.gradient for leaf in work.leaves]
        columns = (recorder.conditions, shared_numbers(work), moved, after, gradients, before(work), recorder.stepped)
        flat = [jax.tree.leaves(column) for column in columns]
        rows[:] = map(len, flat)
        return list(itertools.chain(*flat))

    try:
        program = jax.make_jaxpr(recorded)(*inputs)
    except jax.errors.UnexpectedTracerError:  # the executor runs inside a loop or a branch
        return None
    if recorder.work is None or recorder.calls > 1 or recorder.work.offsets is not None or program.jaxpr.effects:
        return None
    return _Program(program, given, rows).parts(recorder, execute, donate)


class _Program:
    """A recorded step, its inputs and results by what they are."""

    def __init__(self, program: Any, given: Inputs, rows: list[int]) -> None:
        self.program, self.offsets = program, given.offsets
        self.inputs = {v: i for i, v in enumerate(program.jaxpr.invars)}
        self.first, self.split = given.first, given.split
        found = iter(program.jaxpr.outvars)
        self.rows = [[next(found) for _ in range(row)] for row in rows]

    def number(self, v: Any) -> int | None:
        """Of the input that a variable is."""
        return None if isinstance(v, Literal) else self.inputs.get(v)

    def parts(self, recorder: _Recorder, execute: Execute, donate: bool) -> Parts | None:
        """The step in parts, or None."""
        conditions, shared, params, state, gradients, changed, stepped = self.rows
        arrays = [i for v in changed if (i := self.number(v)) is not None]
        if len(arrays) < len(changed) or [self.number(v) for v in gradients] != list(range(self.first[1])):
            return None  # something else changes gradients or weights before the executor gets them
        origin = dict(zip(stepped, arrays, strict=True))
        wanted, results = [*conditions, *shared], list[Source]()
        for place, v in enumerate((*params, *state), start=self.first[1]):
            number = self.number(v)
            if not isinstance(v, Literal) and v in origin:
                results.append(Source("stepped", origin[v]))
            elif number is not None:
                results.append(Source("input", number))
            elif place in self.split:
                return None  # each process would have to calculate its own elements
            else:
                results.append(Source("number", len(wanted)))
                wanted.append(v)
        needed = needed_for(self.program.jaxpr, wanted)
        numbers = sorted(self.inputs[v] for v in needed if v in self.inputs)
        beside = [i for i in numbers if i < self.first[2]]
        moving = [i for i in numbers if beside and self.first[2] <= i < self.first[3]]
        of_params = any(source.kind == "number" for source in results[: len(params)])
        if of_params or needed & set(stepped) or self.elements(moving) > SMALL or self.split & set(numbers):
            return None
        work: Any = recorder.work
        work = work.replace(small=recorder.small, offsets=self.offsets)
        groups = groups_of(work, self.first, arrays, execute, donate)
        run = from_inputs(self.program, wanted, numbers)
        return Parts(run, numbers, beside, len(conditions), len(shared), groups, results)

    def elements(self, numbers: list[int]) -> int:
        """Of some inputs."""
        return sum(self.program.jaxpr.invars[i].aval.size for i in numbers)


def from_inputs(program: Any, wanted: Sequence[Any], numbers: list[int]) -> Callable[[list[Any]], list[jax.Array]]:
    """Some variables of a program, from the inputs that they follow from; XLA drops what makes the others.

    Args:
        program: a `ClosedJaxpr`.
        wanted: the variables.
        numbers: of the inputs.
    """
    part = ClosedJaxpr(program.jaxpr.replace(outvars=list(wanted)), program.consts)

    def results(given: list[Any]) -> list[jax.Array]:
        known, kinds = dict(zip(numbers, given, strict=True)), [v.aval for v in part.jaxpr.invars]
        return jaxpr_as_fun(part)(*[known.get(i, jnp.zeros(kind.shape, kind.dtype)) for i, kind in enumerate(kinds)])

    return jax.jit(results)


def needed_for(jaxpr: Any, wanted: Sequence[Any]) -> set[Any]:
    """The variables of a program that some of them follow from."""
    found = {v for v in wanted if not isinstance(v, Literal)}
    for equation in reversed(jaxpr.eqns):
        if any(v in found for v in equation.outvars):
            found |= {v for v in equation.invars if not isinstance(v, Literal)}
    return found
