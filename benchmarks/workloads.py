"""What is timed: the optimizer's part of a training step, and the trees of parameters it runs on."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

Tree = Any
Step = Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]
Builder = Callable[[], Callable[[], None]]


def step_of(tx: optax.GradientTransformation) -> Step:
    """A fresh jitted `step(params, state, gradients) -> (params, state)` that works in place.

    The donated arguments come in the order of the results: in another order XLA copies them.
    """

    def step(params: Tree, state: Tree, gradients: Tree) -> tuple[Tree, Tree]:
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step, donate_argnums=(0, 1))


def shapes_of(tx: optax.GradientTransformation, params: Tree) -> tuple[Tree, Tree, Tree]:
    """The arguments of a step as shapes and dtypes alone."""
    shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)
    return shapes, jax.eval_shape(tx.init, shapes), shapes


def one_leaf(elements: int) -> Tree:
    return jax.ShapeDtypeStruct((elements,), jnp.float32)


def small_leaves(leaves: int) -> Tree:
    """Many leaves of 64x64."""
    return [jax.ShapeDtypeStruct((64, 64), jnp.float32)] * leaves


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


def count(params: Tree) -> tuple[int, int]:
    """How many leaves and how many elements."""
    leaves = jax.tree.leaves(params)
    return len(leaves), sum(leaf.size for leaf in leaves)


def gradients_for(params: Tree) -> Tree:
    """Normal numbers, the same ones every time."""
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    normal = jax.jit(jax.random.normal, static_argnums=1)
    return treedef.unflatten([normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)])


def builders(transformations: dict[str, optax.GradientTransformation], params: Tree) -> dict[str, Builder]:
    """For each transformation what builds its contender: a call that takes one step and blocks.

    Their states must have one layout: all of them work on the same arrays, each from where the last one stopped, so
    that none of them is lucky with its memory.
    """
    gradients = gradients_for(params)
    zeros = jax.tree.map(jnp.zeros_like, gradients)
    carried = jax.tree.leaves((zeros, next(iter(transformations.values())).init(zeros)))

    def build(tx: optax.GradientTransformation) -> Callable[[], None]:
        step, structure = step_of(tx), jax.tree.structure(shapes_of(tx, params)[:2])

        def call() -> None:
            stepped = step(*structure.unflatten(carried), gradients)
            carried[:] = jax.tree.leaves(jax.block_until_ready(stepped))

        return call

    return {name: functools.partial(build, tx) for name, tx in transformations.items()}
