"""A step of the whole tree in one program.

Where processes have parts of leaves the step is recorded twice, on whole leaves and on the parts of this process. An
array that has different shapes in the two programs consists of elements of such leaves. An equation must not mix them,
with one exception: if it gives one number, the norm of gradients say, it runs apart, on the shards of all processes.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

from adamx.core.leaf import Leaf
from adamx.core.step import Execute
from adamx.core.work import Work
from adamx.kernels.execute import small_of
from adamx.streaming.parts import Parts, Take, either, from_inputs, in_parts, needed_for
from adamx.streaming.pieces import Inputs, Trees
from adamx.trees import Tree

PASS = "adamx_pass"
"""The name of the program that takes the leaves through the step."""

ELEMENTWISE = (
    *("abs", "add", "add_any", "and", "atan2", "bitcast_convert_type", "cbrt", "ceil", "clamp", "conj"),
    *("convert_element_type", "copy", "cos", "div", "eq", "erf", "exp", "exp2", "expm1", "floor", "ge", "gt", "imag"),
    *("integer_pow", "is_finite", "le", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg"),
    *("nextafter", "not", "or", "pow", "real", "reduce_precision", "rem", "round", "rsqrt", "select_n", "shift_left"),
    *("shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sqrt", "square", "stop_gradient", "sub"),
    *("tanh", "xor"),
)
"""Primitives that take each element for itself: an array has one shape, and others are scalars."""

FILLING = ("broadcast_in_dim", "iota")
"""Primitives that fill an array by numbers or places; a leaf of random numbers would not be that of one device."""

Run = Callable[[Tree, Tree, Tree, Any, list[jax.Array]], tuple[Tree, Tree]]
"""From parameters, state, gradients, extra arguments and numbers to parameters and state."""


class Whole(NamedTuple):
    """A step of the whole tree.

    Attributes:
        numbers: from the inputs in `needed` to sums over elements of all processes; none if each has whole leaves.
        needed: inputs by number, in the order of `Parts`.
        beside: those of them that are gradients or parameters.
        run: the compiled step.
    """

    numbers: Callable[[list[Any]], list[jax.Array]]
    needed: list[int]
    beside: list[int]
    run: Run


def planned(take: Take, inputs: Inputs, execute: Execute, donate: bool) -> Parts | Whole:
    """The step in parts, or of the whole tree where it cannot be taken in parts; arguments as of `whole`."""
    return in_parts(take, inputs, execute, donate) or whole(take, inputs, execute, donate)


def whole(take: Take, inputs: Inputs, execute: Execute, donate: bool) -> Whole:
    """The step of the whole tree.

    Args:
        take: the step.
        inputs: of the step.
        execute: takes the leaves through it.
        donate: whether the state is written in place.

    Raises:
        ValueError: it mixes elements of a leaf that processes have parts of.
    """
    if inputs.offsets is None:

        def run(params: Tree, state: Tree, gradients: Tree, extra: Any, _: list[jax.Array]) -> tuple[Tree, Tree]:
            return take(gradients, params, state, extra, execute, None)

        return _compiled(run, donate)
    return _apart(take, inputs, execute, donate)


def _compiled(run: Run, donate: bool, numbers: Any = list, needed: Any = (), beside: Any = ()) -> Whole:
    return Whole(numbers, needed, beside, jax.jit(run, donate_argnums=(0, 1) if donate else 0))


def _apart(take: Take, inputs: Inputs, execute: Execute, donate: bool) -> Whole:
    record, small = functools.partial(_record, take, execute, inputs), list[tuple[bool, ...]]()
    of_whole, _ = record(inputs.whole, lambda work: small.append(small_of(work)) or small[-1])
    of_own, after = record(inputs.own, lambda _: small.pop(0))
    jaxpr, sums = of_own.jaxpr, list(_sums(of_whole.jaxpr, of_own.jaxpr))
    wanted = [v for i in sums for v in of_whole.jaxpr.eqns[i].outvars]
    needed = needed_for(of_whole.jaxpr, wanted)
    numbers = [i for i, v in enumerate(of_whole.jaxpr.invars) if v in needed]
    stepped = {v for e in of_whole.jaxpr.eqns if e.params.get("name") == PASS for v in e.outvars}
    if inputs.split & set(numbers) or stepped & needed:
        raise ValueError(f"{MIXED} (it sums over its state, or over parameters after the step)")
    known = [v for i in sums for v in jaxpr.eqns[i].outvars]
    others = [equation for i, equation in enumerate(jaxpr.eqns) if i not in sums]
    rest = jaxpr.replace(constvars=[*jaxpr.constvars, *known], eqns=others)

    def run(params: Tree, state: Tree, gradients: Tree, extra: Any, sums: list[jax.Array]) -> tuple[Tree, Tree]:
        program = jaxpr_as_fun(ClosedJaxpr(rest, [*of_own.consts, *sums]))
        return jax.tree.unflatten(after, program(*jax.tree.leaves((gradients, params, state, extra))))

    beside = [i for i in numbers if i < inputs.first[2]]
    return _compiled(run, donate, from_inputs(of_whole, wanted, numbers), numbers, beside)


MIXED = (
    "adamx.on_host steps the elements of a leaf in the process that holds them, but this transformation mixes elements "
    "of a leaf that is split over processes: put clip_by_global_norm around accumulate, or keep the state on devices, "
    "adamx.shard_state"
)


def _record(
    take: Take, execute: Execute, inputs: Inputs, trees: Trees, small: Callable[[Work], tuple[bool, ...]]
) -> tuple[Any, Any]:
    """The program of a step on some of the inputs, and the structure of its results.

    Args:
        take: the step.
        execute: takes the leaves through it.
        inputs: of the step.
        trees: those of them that it is recorded on.
        small: says of a pass which of its leaves are small.
    """
    offsets: Any = jax.tree.structure(inputs.own[1]).unflatten(inputs.offsets or ())

    def adamx_pass(work: Work) -> tuple[Leaf, ...]:
        return execute(work)

    def passed(work: Work) -> tuple[Leaf, ...]:
        if any(leaf.norms is not None for leaf in work.leaves):
            raise ValueError(f"{MIXED} (it measures the norms of leaves)")
        return jax.jit(adamx_pass)(work.replace(small=small(work)))

    def step(gradients: Tree, params: Tree, state: Tree, extra: Any) -> tuple[Tree, Tree]:
        return take(gradients, params, state, {**extra, "dither_offset": offsets}, passed, _chosen)

    program, after = jax.make_jaxpr(step, return_shape=True)(*trees)
    return program, jax.tree.structure(after)


def _chosen(clean: jax.Array, take: Any, keep: Any, state: Any) -> tuple[Tree, Any]:
    """A step of a guard without a branch, so that norms inside are equations of their own."""
    moved, after = take(state)
    return jax.tree.map(functools.partial(either, clean), (moved, after), (keep(moved), state))


def _sums(whole: Any, own: Any, outer: bool = True) -> Iterator[int]:
    """The equations that give one number of elements of split leaves, or an error if others mix them."""
    if [equation.primitive for equation in whole.eqns] != [equation.primitive for equation in own.eqns]:
        raise ValueError(f"{MIXED} (what it does depends on their shapes)")
    for i, (big, small) in enumerate(zip(whole.eqns, own.eqns, strict=True)):
        given = [y for x, y in zip(big.invars, small.invars, strict=True) if _differ(x, y)]
        if small.params.get("name") == PASS or not (given or any(map(_differ, big.outvars, small.outvars))):
            continue
        inner = list(zip(*map(_programs, (big, small)), strict=True))
        if outer and not any(v.aval.shape for v in small.outvars):
            yield i
        elif inner:
            for programs in inner:
                list(_sums(*programs, outer=False))
        elif _mixes(small, given):
            raise ValueError(f"{MIXED} ({small.primitive.name})")


def _mixes(equation: Any, given: list[Any]) -> bool:
    """Whether an equation may mix elements of the split arrays that it is given; without such it makes one."""
    name, shapes = equation.primitive.name, {v.aval.shape for v in (*given, *equation.outvars)}
    if not given:
        return name not in FILLING
    return name != "optimization_barrier" and (name not in ELEMENTWISE or len(shapes) > 1)


def _differ(x: Any, y: Any) -> bool:
    """Whether two variables differ in shape, or are numbers that follow from shapes."""
    same = x.aval.shape == y.aval.shape
    if isinstance(x, Literal) and isinstance(y, Literal):
        return np.asarray(x.val).tobytes() != np.asarray(y.val).tobytes()
    return not same


def _programs(equation: Any) -> list[Any]:
    """The programs inside an equation: branches of a condition, what is compiled apart."""
    found = [getattr(x, "jaxpr", x) for x in jax.tree.leaves(list(equation.params.values()))]
    return [x for x in found if hasattr(x, "eqns")]
