"""The step of Adam: counts advance, trees become leaves, and the executor takes them through one pass."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamx import numerics
from adamx.core.averages import Averages, checked_moments
from adamx.core.leaf import Leaf, Numbers, Rule
from adamx.core.leaf_norms import of_given
from adamx.core.state import MomentsState, increment
from adamx.core.step import Pass, Step, Weights
from adamx.core.work import Work
from adamx.numerics import Scalar
from adamx.storage.dither import MOMENTS, PARAMETER, leaf_salt
from adamx.trees import Tree, check_fits, path_name
from adamx.variables import flatten_with_path


def adam_step(averages: Averages, eps: Scalar, eps_root: Scalar, nesterov: bool) -> Step:
    """The step of `scale_by_adam` with all that is around it.

    Args:
        averages: lines 7 and 8.
        eps: ε.
        eps_root: ε_root.
        nesterov: whether m looks one step ahead.
    """
    known = averages.replace(b1=_if_known(averages.b1), b2=_if_known(averages.b2))

    def step(gradients: Tree, state: Any, weights: Weights, told: Pass) -> tuple[Weights, MomentsState]:
        before = checked_moments(averages, state, gradients)
        check_fits(weights.params, gradients, "parameter", "update")
        count = increment(jnp.asarray(before.count))  # line 5
        found = _leaves(gradients, weights, before, told.measured is not None)
        work = Work(
            numbers=_numbers(averages, eps, eps_root, count, weights, told),
            leaves=found,
            tails=told.tails,
            offsets=_offsets(weights.params, told),
            rule=Rule(known, _if_known(eps), nesterov, weights.behind),
            salts=_salts(weights, averages),
            places=tuple(range(len(found))) if told.places is None else told.places,
        )
        columns = zip(*told.execute(work), strict=True) if work.leaves else [()] * len(Leaf._fields)
        treedef = jax.tree.structure(weights.params)
        *columns, norms = columns
        _, params, remainder, mu, nu = map(treedef.unflatten, columns)
        norms = of_given(norms, treedef.flatten_up_to(gradients), told.measured)
        moved = weights.replace(params=params, remainder=None if weights.remainder is None else remainder, norms=norms)
        return moved, MomentsState(count, mu, nu)

    return step


def _if_known(value: Scalar) -> Any:
    """A number; None in the place of an array, which goes with the numbers of the step."""
    return value if isinstance(value, float) else None


def _numbers(
    averages: Averages, eps: Scalar, eps_root: Scalar, count: jax.Array, weights: Weights, told: Pass
) -> Numbers:
    b1, b2, weigh = averages.b1, averages.b2, numerics.ema_weight
    times = ((b1, count), (b2, count), (b1, increment(count)))
    corrections = [weigh(b, t, precise=averages.precise) for b, t in times]
    clock = count.astype(jnp.uint32)
    other = jnp.uint32(0) if weights.count is None else weights.count
    numbers = [jnp.asarray(x, float) for x in (b1, b2, *corrections, eps, eps_root)]
    return Numbers._make([told.factor, *numbers, clock, other])


def _leaves(gradients: Tree, weights: Weights, before: MomentsState, norms: bool) -> tuple[Leaf, ...]:
    """What belongs to each leaf of the parameters, in their order; zeros where norms will stand."""
    params, treedef = jax.tree.flatten(weights.params)
    columns = [treedef.flatten_up_to(tree) for tree in (gradients, before.mu, before.nu)]
    remainder = weights.remainder
    behind = [None] * len(params) if remainder is None else treedef.flatten_up_to(remainder)
    gradients, mu, nu = columns
    zeros = [np.zeros(3, np.float32) if norms else None] * len(params)
    return jax.tree.map(jnp.asarray, tuple(map(Leaf, gradients, params, behind, mu, nu, zeros)))


def _offsets(params: Tree, told: Pass) -> tuple[tuple[Any, ...], ...] | None:
    given = told.extra.get("dither_offset")
    if given is None:
        return None
    return tuple(tuple(place) for place in jax.tree.structure(params).flatten_up_to(given))


def _salts(weights: Weights, averages: Averages) -> tuple[tuple[int, int], ...]:
    """The salts of moments and parameter of each leaf; zeros where nothing is dithered."""
    found, _ = flatten_with_path(weights.params)
    if not (averages.draws or weights.count is not None):
        return ((0, 0),) * len(found)
    names = [path_name(path) for path, _ in found]
    return tuple(
        [(int(leaf_salt(n, MOMENTS, averages.seeds)), int(leaf_salt(n, PARAMETER, (weights.seed,)))) for n in names]
    )
