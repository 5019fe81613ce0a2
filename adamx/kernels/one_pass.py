"""Adam's step by a kernel, for the leaves that it takes; the others go the way of the composed stages."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamx import hyperparameters, numerics
from adamx.core.state import DitheredMomentsState, increment
from adamx.core.update import composed_step
from adamx.kernels.layout import MASTER, PLAIN, STOCHASTIC, Form, Kernel, Leaf, Rule, calls, may_wait, worthwhile
from adamx.kernels.recipe import Recipe
from adamx.kernels.tree import Parts, leaves_of, put_together, take_apart, with_leaves
from adamx.precision.stochastic_rounding import StochasticRoundingState
from adamx.precision.wrapping import Wrapping
from adamx.storage.choice import moment_codecs
from adamx.storage.dither import MOMENTS, PARAMETER, Walk, place, walks
from adamx.trees import Tree

HOLE = ()
"""In the place of a leaf that the kernel takes: a node without leaves. None would do but where it is the whole tree."""


def one_pass(
    kernel: Kernel,
    recipe: Recipe,
    wrapping: Wrapping | None,
    gradients: Tree,
    params: Tree,
    state: Any,
    offsets: Tree | None,
) -> tuple[Tree, Any]:
    """Parameters and state after a step.

    Args:
        kernel: of the platform.
        recipe: the hyperparameters.
        wrapping: what is around the optimizer, or None.
        gradients: a tree of the parameters' structure.
        params: a tree of arrays.
        state: of the optimizer, with that of the wrapper around it.
        offsets: where the shards at hand begin in their leaves, or None.
    """
    treedef = jax.tree.structure(params)
    before = take_apart(state, wrapping, recipe.stages)
    b1, b2 = (hyperparameters.decay_rate(name, getattr(recipe, name), precise=recipe.precise) for name in ("b1", "b2"))
    codecs = moment_codecs(recipe.mu_dtype, recipe.nu_dtype, b1, b2)
    weights = PLAIN if wrapping is None else MASTER if wrapping.seed is None else STOCHASTIC
    leaves = leaves_of(treedef, gradients, params, before)
    dithers_sum = recipe.precise and numerics.needs_dither(float(b2))
    taken = [None if dithers_sum else kernel.form_of(leaf, codecs, weights) for leaf in leaves]
    forms = worthwhile(taken, leaves)
    decays = _decaying(recipe, params, treedef)

    others = _without(forms, treedef, leaves, decays, offsets)
    stepped, after = _composed(recipe, wrapping, treedef, *others, before)
    numbers, counts = _numbers(recipe, b1, b2, before, after), _counts(after)
    weights_seed = (wrapping.seed if wrapping else None) or 0
    seeds = {MOMENTS: tuple(codec.seed for codec in codecs), PARAMETER: (weights_seed,)}
    places = [treedef.flatten_up_to(walks(params, 0, what, of, offsets)) for what, of in seeds.items()]
    waits = may_wait([leaf for leaf, form in zip(leaves, forms, strict=True) if form])
    rule = Rule(b1, b2, recipe.nesterov, recipe.precise, len(leaves) == 1, waits)
    for form, members in calls(forms):
        salts = _salts([[of[i] for of in places] for i in members], [decays[i] for i in members])
        new = kernel.call(form, [leaves[i] for i in members], numbers, counts, salts, rule)
        for i, leaf in zip(members, new, strict=True):
            stepped[i] = leaf
    _, params, parts = with_leaves(treedef, stepped, after)
    return params, put_together(parts)


def _decaying(recipe: Recipe, params: Tree, treedef: Any) -> list[bool]:
    """Which leaves decay."""
    nothing = not callable(recipe.weight_decay) and hyperparameters.known(recipe.weight_decay) == 0
    if not recipe.decoupled or nothing:
        return [False] * treedef.num_leaves
    mask = True if recipe.mask is None else recipe.mask(params) if callable(recipe.mask) else recipe.mask

    def everywhere(decays: Any, below: Tree) -> Tree:
        def same(_: Any) -> bool:
            return bool(decays)

        return jax.tree.map(same, below)

    return treedef.flatten_up_to(jax.tree.map(everywhere, mask, params))


def _without(
    forms: list[Form | None], treedef: Any, leaves: list[Leaf], decays: list[bool], offsets: Tree | None
) -> tuple[list[Leaf], Tree, Tree | None]:
    """Leaves, mask and offsets with holes in the places of what the kernel takes."""

    def holes(column: list[Any], hole: Any) -> list[Any]:
        return [hole if form else x for x, form in zip(column, forms, strict=True)]

    places = None if offsets is None else treedef.unflatten(holes(treedef.flatten_up_to(offsets), HOLE))
    return holes(leaves, Leaf(*[HOLE] * len(Leaf._fields))), treedef.unflatten(holes(decays, HOLE)), places


def _composed(
    recipe: Recipe,
    wrapping: Wrapping | None,
    treedef: Any,
    leaves: list[Leaf],
    mask: Tree,
    offsets: Tree | None,
    before: Parts,
) -> tuple[list[Leaf], Parts]:
    """The step of the composed stages on the leaves that the kernel leaves out, and on all that is not a leaf."""
    gradients, params, parts = with_leaves(treedef, leaves, before)
    tx = recipe.replace(mask=None if recipe.mask is None else mask).build()
    tx = tx if wrapping is None else wrapping.around(tx)
    extra = {} if offsets is None else {"dither_offset": offsets}
    params, state = composed_step(tx, gradients, put_together(parts), params, extra)
    after = take_apart(state, wrapping, recipe.stages)
    return leaves_of(treedef, gradients, params, after), after


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


def _counts(after: Parts) -> jax.Array:
    """The steps of the moments' dither and of the parameters', 0 where there is none."""
    moments = after.moments.step if isinstance(after.moments, DitheredMomentsState) else jnp.uint32(0)
    weights = after.outer.step if isinstance(after.outer, StochasticRoundingState) else jnp.uint32(0)
    return jnp.stack([moments, weights])


def _salts(places: list[list[Walk]], decays: list[bool]) -> jax.Array:
    """Three numbers a leaf: where the dither of the moments and of the parameter begins, and whether it decays."""
    rows = list(zip(places, decays, strict=True))
    if all(walk.offset is None for walks_of_leaf in places for walk in walks_of_leaf):
        return jnp.asarray(np.array([[*(walk.salt for walk in found), decay] for found, decay in rows], np.uint32))
    numbers = [[*(place(walk.salt, walk.offset) for walk in found), jnp.uint32(decay)] for found, decay in rows]
    return jnp.stack([jnp.stack(row) for row in numbers])
