"""What one process has of the inputs of a step where leaves are split over processes."""

import math
from typing import Any, NamedTuple

import jax
import optax

from adamx.differences import first_difference
from adamx.sharding.plan import blocks_of
from adamx.storage.blocks import check_whole
from adamx.streaming.shards import box, lies_apart, written
from adamx.trees import Tree, path_name
from adamx.variables import flatten_with_path

Trees = tuple[Tree, Tree, Tree, Any]
"""Gradients, parameters, state and extra arguments."""


class Inputs(NamedTuple):
    """The shapes of the inputs of a step.

    Attributes:
        whole: of all processes together.
        own: of this process, a box of each leaf.
        offsets: where the box begins in each parameter, one index an axis; None: every process has whole leaves.
    """

    whole: Trees
    own: Trees
    offsets: tuple[tuple[int, ...], ...] | None = None

    @property
    def first(self) -> list[int]:
        """Where gradients, parameters, state and extra arguments begin among the inputs, and where they end."""
        return [len(jax.tree.leaves(self.own[:i])) for i in range(len(self.own) + 1)]

    @property
    def split(self) -> set[int]:
        """The arrays of the state that this process has a part of, by number among the inputs."""
        pairs = zip(jax.tree.leaves(self.whole), jax.tree.leaves(self.own), strict=True)
        return {i for i, (x, y) in enumerate(pairs) if x.shape != y.shape} & set(range(*self.first[2:4]))


def shape(x: Any) -> jax.ShapeDtypeStruct:
    """Of a whole array."""
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def own_shape(x: Any) -> jax.ShapeDtypeStruct:
    """Of what this process has of an array."""
    return jax.ShapeDtypeStruct(tuple(end - begin for begin, end in box(x)), x.dtype)


def check_held(gradients: Tree, params: Tree) -> None:
    """Raises where this process lacks elements of what it is to step.

    Raises:
        ValueError: a leaf of which it has none, or no box; a gradient without some of the elements of its parameter.
    """
    if jax.process_count() == 1:
        return
    leaves = jax.tree.leaves(gradients)
    if all(getattr(x, "is_fully_addressable", True) for x in (*leaves, *jax.tree.leaves(params))):
        return  # paths cost more than all else here
    found, treedef = flatten_with_path(params)
    if treedef != jax.tree.structure(gradients):
        return  # the step tells where the trees part
    for (path, p), g in zip(found, leaves, strict=True):
        try:
            own, given = box(p), box(g)
        except ValueError as error:
            raise ValueError(f"{path_name(path)}: {error}") from None
        if any(first > begin or last < end for (first, last), (begin, end) in zip(given, own, strict=False)):
            raise ValueError(
                f"this process has the elements {written(own)} of the parameter at {path_name(path)}, but of its "
                f"gradient only {written(given)}: place the gradient as the parameter, "
                "jax.lax.with_sharding_constraint(gradients, shardings), or on all processes"
            )


def inputs_of(tx: optax.GradientTransformation, trees: Trees) -> Inputs:
    """The shapes of the inputs of a step, the state in a process that has only its own box of each leaf.

    Args:
        tx: made the state.
        trees: of arrays.

    Raises:
        ValueError: a state that is not that of the box.
    """
    gradients, params, state, extra = trees
    given = jax.tree.map(shape, trees)
    if not any(map(lies_apart, jax.tree.leaves(params))):
        return Inputs(given, given)
    whole, own = states_of(tx, params)
    if jax.tree.structure(own) != jax.tree.structure(state) or _outline(own) != _outline(state):
        raise ValueError(
            "the state is not that of the elements which this process holds: "
            f"{first_difference(own, state) or 'its arrays have other shapes'}; make it by tx.init(params), or restore "
            "in each process what it has saved, with parameters on the same devices"
        )
    here = jax.tree.map(own_shape, params)
    gradients = jax.tree.structure(gradients).unflatten(jax.tree.leaves(here))
    offsets = tuple(tuple(begin for begin, _ in box(p)) for p in jax.tree.leaves(params))
    return Inputs((*given[:2], whole, given[3]), (gradients, here, own, jax.tree.map(own_shape, extra)), offsets)


def states_of(tx: optax.GradientTransformation, params: Tree) -> tuple[Tree, Tree]:
    """The shapes of the state of whole parameters, and of that of the boxes of this process.

    Raises:
        ValueError: a box that cuts the blocks of a codec, or that the codec would not take.
    """
    whole, own = (jax.eval_shape(tx.init, jax.tree.map(f, params)) for f in (shape, own_shape))
    found, treedef = flatten_with_path(params)
    for (path, p), block in zip(found, blocks_of(tx, whole, treedef), strict=True):
        for begin, end in box(p)[-1:]:
            if end - begin < p.shape[-1]:
                parts = p.shape[-1] // math.gcd(begin, end, p.shape[-1])
                check_whole(path_name(path), block, p.shape[-1], "processes", parts)
    difference = first_difference(whole, own)
    if difference:
        raise ValueError(
            f"this process holds too little of a leaf to store its state as that of the whole leaf: {difference}; "
            "leave small leaves out of the codec, as with adamx.storage.Int8(min_size=...)"
        )
    return whole, own


def _outline(tree: Tree) -> list[tuple[int, ...]]:
    return [x.shape for x in jax.tree.leaves(tree)]
