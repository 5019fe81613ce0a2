"""Adam's step by the native kernel, for the leaves that it takes; the others go the way of the composed stages."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamx import hyperparameters, numerics
from adamx.core.state import DitheredMomentsState, increment
from adamx.kernels.call import call_kernel
from adamx.kernels.layout import MASTER, PLAIN, STOCHASTIC, Leaf, calls, form_of
from adamx.kernels.recipe import Recipe
from adamx.kernels.tree import Parts, leaves_of, put_together, take_apart, with_leaves
from adamx.precision.stochastic_rounding import StochasticRoundingState
from adamx.precision.wrapping import Wrapping
from adamx.storage.choice import moment_codecs
from adamx.storage.dither import Walk, place, walks
from adamx.trees import Tree

HOLE = Leaf(None, None, None, None, None)


def one_pass(
    recipe: Recipe, wrapping: Wrapping | None, gradients: Tree, params: Tree, state: Any, offsets: Tree | None
) -> tuple[Tree, Any]:
    """Parameters and state after a step.

    Args:
        recipe: the hyperparameters.
        wrapping: what is around the optimizer, or None.
        gradients: a tree of the parameters' structure.
        params: a tree of arrays.
        state: of the optimizer, with that of the wrapper around it.
        offsets: where the shards at hand begin in their leaves, or None.
    """
    treedef = jax.tree.structure(params)
    before = take_apart(state, wrapping, stages=3 if recipe.decoupled else 2)
    b1, b2 = (hyperparameters.decay_rate(name, getattr(recipe, name), precise=recipe.precise) for name in ("b1", "b2"))
    codecs = moment_codecs(recipe.mu_dtype, recipe.nu_dtype, b1, b2)
    weights = PLAIN if wrapping is None else MASTER if wrapping.seed is None else STOCHASTIC
    leaves = leaves_of(treedef, gradients, params, before)
    dithers_sum = recipe.precise and numerics.needs_dither(float(b2))
    forms = [None if dithers_sum else form_of(leaf, codecs, weights) for leaf in leaves]
    decays = _decaying(recipe, params, treedef)

    # What is left to XLA, and all that is not a leaf.
    rest = [HOLE if form else leaf for leaf, form in zip(leaves, forms, strict=True)]
    rest_gradients, rest_params, rest_parts = with_leaves(treedef, rest, before)
    mask = treedef.unflatten([None if form else d for d, form in zip(decays, forms, strict=True)])
    tx = recipe.replace(mask=None if recipe.mask is None else mask).build()
    tx = tx if wrapping is None else wrapping.around(tx)
    offset = {} if offsets is None else {"dither_offset": _holes_like(treedef, offsets, forms)}
    updates, rest_state = tx.update(rest_gradients, put_together(rest_parts), rest_params, **offset)
    rest_params = optax.apply_updates(rest_params, updates)
    after = take_apart(rest_state, wrapping, len(before.others) + 1)
    stepped = leaves_of(treedef, rest_gradients, rest_params, after)

    # What the kernel takes.
    numbers = _numbers(recipe, b1, b2, before, after)
    dithered = isinstance(after.moments, DitheredMomentsState)
    first_count = after.moments.step if dithered else jnp.uint32(0)
    last_count = after.outer.step if isinstance(after.outer, StochasticRoundingState) else jnp.uint32(0)
    counts = jnp.stack([first_count, last_count])
    seeds = (*(codec.seed for codec in codecs), (wrapping.seed or 0) if wrapping else 0)
    places = treedef.flatten_up_to(walks(params, 0, seeds, offsets))
    exact = [recipe.precise and float(b) >= 0.5 for b in (b1, b2)] if recipe.precise else [False, False]
    rule = {"nesterov": recipe.nesterov, "precise1": exact[0], "precise2": exact[1]}
    for form, members in calls(forms):
        salts = _salts([places[i] for i in members], [decays[i] for i in members])
        new = call_kernel(form, [leaves[i] for i in members], numbers, counts, salts, **rule)
        for i, leaf in zip(members, new, strict=True):
            stepped[i] = leaf
    _, params, parts = with_leaves(treedef, stepped, after)
    return params, put_together(parts)


def _decaying(recipe: Recipe, params: Tree, treedef: jax.tree_util.PyTreeDef) -> list[bool]:
    """Which leaves decay."""
    nothing = not callable(recipe.weight_decay) and hyperparameters.known(recipe.weight_decay) == 0
    if not recipe.decoupled or nothing:
        return [False] * treedef.num_leaves
    mask = True if recipe.mask is None else recipe.mask(params) if callable(recipe.mask) else recipe.mask
    full = jax.tree.map(lambda m, below: jax.tree.map(lambda _: bool(m), below), mask, params)
    return treedef.flatten_up_to(full)


def _holes_like(treedef: jax.tree_util.PyTreeDef, tree: Tree, forms: list[Any]) -> Tree:
    return treedef.unflatten([None if form else x for x, form in zip(treedef.flatten_up_to(tree), forms, strict=True)])


def _numbers(recipe: Recipe, b1: Any, b2: Any, before: Parts, after: Parts) -> jax.Array:
    """The numbers of a step, in the order of `adamx/kernels/cpu/operands.h`."""
    count = after.moments.count
    weights = [
        numerics.ema_weight(b, t, precise=recipe.precise) for b, t in ((b1, count), (b2, count), (b1, increment(count)))
    ]
    rate, decay = recipe.learning_rate, recipe.weight_decay if recipe.decoupled else 0.0
    if callable(rate):
        rate = rate(jax.tree.leaves(before.others[-1])[0])
    if callable(decay):
        decay = decay(jax.tree.leaves(before.others[0])[0])
    values = [b1, 1 - b1, b2, 1 - b2, *weights, recipe.eps, recipe.eps_root, -1 * rate, decay]
    return jnp.stack([jnp.asarray(value).astype(jnp.float32) for value in values])


def _salts(places: list[Walk], decays: list[bool]) -> jax.Array:
    """Four numbers a leaf: where the dither of m, v and the parameter begins, and whether it decays."""
    if all(walk.offset is None for walk in places):
        return jnp.asarray(np.array([[*walk.salts, d] for walk, d in zip(places, decays, strict=True)], np.uint32))
    rows = [
        [*(place(s, walk.offset) for s in walk.salts), jnp.uint32(d)] for walk, d in zip(places, decays, strict=True)
    ]
    return jnp.stack([jnp.stack(row) for row in rows])
