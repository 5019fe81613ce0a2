"""What is timed: the optimizer's part of a training step, and the trees of parameters it runs on."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from harness import Builder, Contender, ratios, spread

Tree = Any
Step = Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]


def update_and_apply(tx: optax.GradientTransformation, gradients: Tree, state: Tree, params: Tree) -> tuple[Tree, Tree]:
    """A step as optax takes it, with the signature of `adamx.step`."""
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state


class Optimizer(NamedTuple):
    """A transformation and how its step is taken."""

    tx: optax.GradientTransformation
    take: Callable[[optax.GradientTransformation, Tree, Tree, Tree], tuple[Tree, Tree]] = update_and_apply


def step_of(optimizer: Optimizer) -> Step:
    """A fresh jitted `step(params, state, gradients) -> (params, state)` that works in place.

    The donated arguments come in the order of the results: in another order XLA copies them.
    """

    def step(params: Tree, state: Tree, gradients: Tree) -> tuple[Tree, Tree]:
        return optimizer.take(optimizer.tx, gradients, state, params)

    return jax.jit(step, donate_argnums=(0, 1))


def shapes_of(optimizer: Optimizer, params: Tree) -> tuple[Tree, Tree, Tree]:
    """The arguments of a step as shapes and dtypes alone."""
    shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)
    return shapes, jax.eval_shape(optimizer.tx.init, shapes), shapes


def one_leaf(elements: int) -> Tree:
    return {"w": jax.ShapeDtypeStruct((elements,), jnp.float32)}


def small_leaves(leaves: int, *shape: int) -> Tree:
    """Many leaves of one shape, 64x64 if none is given."""
    return [jax.ShapeDtypeStruct(shape or (64, 64), jnp.float32)] * leaves


def gpt2_small() -> Tree:
    """The shapes of GPT-2 small: 124 million parameters in 148 leaves."""
    width, blocks = 768, 12

    def leaf(*shape: int) -> Tree:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    def norm() -> Tree:
        return {"scale": leaf(width), "bias": leaf(width)}

    def dense(inputs: int, outputs: int) -> Tree:
        return {"kernel": leaf(inputs, outputs), "bias": leaf(outputs)}

    def block() -> Tree:
        attention = {"qkv": dense(width, 3 * width), "out": dense(width, width)}
        mlp = {"up": dense(width, 4 * width), "down": dense(4 * width, width)}
        return {"norm_1": norm(), "attention": attention, "norm_2": norm(), "mlp": mlp}

    embeddings = {"tokens": leaf(50257, width), "positions": leaf(1024, width)}
    return {**embeddings, "blocks": [block() for _ in range(blocks)], "norm": norm()}


def resnet50() -> Tree:
    """The shapes of ResNet-50: 25.6 million parameters in 161 leaves."""

    def leaf(*shape: int) -> Tree:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    def conv(size: int, inputs: int, outputs: int) -> Tree:
        return {"kernel": leaf(size, size, inputs, outputs), "scale": leaf(outputs), "bias": leaf(outputs)}

    def block(inputs: int, width: int, *, first: bool) -> Tree:
        convs = [conv(1, inputs, width), conv(3, width, width), conv(1, width, 4 * width)]
        return [*convs, conv(1, inputs, 4 * width)] if first else convs

    blocks, inputs = [], 64
    for width, depth in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for i in range(depth):
            blocks.append(block(inputs, width, first=i == 0))
            inputs = 4 * width
    return {"stem": conv(7, 3, 64), "blocks": blocks, "head": {"kernel": leaf(inputs, 1000), "bias": leaf(1000)}}


def count(params: Tree) -> tuple[int, int]:
    """How many leaves and how many elements."""
    leaves = jax.tree.leaves(params)
    return len(leaves), sum(leaf.size for leaf in leaves)


def as_row(case: str, params: Tree, seconds: Mapping[str, Sequence[float]], baseline: str) -> dict[str, Any]:
    """What was measured of a case, as it goes into a JSON file: medians, and ratios to a baseline."""
    leaves, elements = count(params)
    return {
        "case": case,
        "leaves": leaves,
        "elements": elements,
        "rounds": len(seconds[baseline]),
        "milliseconds": {name: spread([1e3 * s for s in values]) for name, values in seconds.items()},
        "ratio": ratios(seconds, baseline),
    }


def gradients_for(params: Tree) -> Tree:
    """Normal numbers, the same ones every time."""
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    normal = jax.jit(jax.random.normal, static_argnums=1)
    return treedef.unflatten([normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)])


def builders(optimizers: Mapping[str, Optimizer], params: Tree, *, wait: bool = True) -> dict[str, Builder]:
    """For each optimizer what builds its contender.

    Those whose parameters and states have the same leaves work on the same arrays, each from where the last one
    stopped, so that none of them is lucky with its memory.

    Args:
        optimizers: by name.
        params: shapes.
        wait: for each step; else for the last one of a sample only, as steps follow one another on an accelerator.
    """
    gradients, arrays = gradients_for(params), {}

    def build(optimizer: Optimizer) -> Contender:
        step, shapes = step_of(optimizer), shapes_of(optimizer, params)[:2]
        layout, structure = tuple((s.shape, s.dtype) for s in jax.tree.leaves(shapes)), jax.tree.structure(shapes)
        if layout not in arrays:
            zeros = jax.tree.map(jnp.zeros_like, gradients)
            arrays[layout] = jax.tree.leaves((zeros, optimizer.tx.init(zeros)))

        def contender(calls: int) -> float:
            carried = structure.unflatten(arrays[layout])
            start = time.perf_counter()
            for _ in range(calls):
                carried = step(*carried, gradients)
                if wait:
                    jax.block_until_ready(carried)
            jax.block_until_ready(carried)
            taken = time.perf_counter() - start
            arrays[layout] = jax.tree.leaves(carried)
            return taken / calls

        return contender

    return {name: functools.partial(build, optimizer) for name, optimizer in optimizers.items()}


def bytes_of(tree: Tree) -> int:
    """Of all leaves, arrays or shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def bytes_moved(optimizer: Optimizer, params: Tree) -> int:
    """What a step has to read and write: parameters and state both, gradients once."""
    shapes, state, gradients = shapes_of(optimizer, params)
    return 2 * bytes_of((shapes, state)) + bytes_of(gradients)
