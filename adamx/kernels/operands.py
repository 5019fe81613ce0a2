"""The scalars of a step as the kernels take them: few arrays, whatever the number of leaves."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from adamx.core.leaf import Term
from adamx.core.work import Work, decays
from adamx.storage.dither import place


class Scalars(NamedTuple):
    """What a kernel reads beside the leaves.

    Attributes:
        numbers: 10 of the step, float32: β1, 1-β1, β2, 1-β2, the three weights of `Numbers`, ε, ε_root, the factor.
        counts: the clocks of the moments' and the parameters' dither, uint32.
        salts: 3 of each leaf, uint32: where the dither of its moments and its parameter begins, and how it decays
            (`adamx.core.work.decays`).
        terms: 2 of each leaf, float32: what its direction is multiplied by, and what its weight is, if it decays.
    """

    numbers: jax.Array
    counts: jax.Array
    salts: jax.Array
    terms: jax.Array


class OfStep(NamedTuple):
    """What all calls of one step share: `numbers` and `counts` of `Scalars`."""

    numbers: jax.Array
    counts: jax.Array


def of_step(work: Work) -> OfStep:
    """The scalars of a step, whatever the leaves: calculated once for all calls."""
    n, averages = work.numbers, cast(Any, work.rule.averages)
    rests = [1 - (b if known is None else known) for b, known in ((n.b1, averages.b1), (n.b2, averages.b2))]
    factor = 1.0 if n.factor is None else n.factor
    values = [n.b1, rests[0], n.b2, rests[1], n.weight1, n.weight2, n.weight1_next, n.eps, n.eps_root, factor]
    numbers = jnp.stack([jnp.asarray(value).astype(jnp.float32) for value in values])
    return OfStep(numbers, jnp.stack([n.moments_step, n.params_step]))


def scalars(work: Work, step: OfStep) -> Scalars:
    """The scalars of a call on these leaves."""
    return Scalars(*step, _salts(work), _terms(work))


def _salts(work: Work) -> jax.Array:
    rows = [[*salts, how] for salts, how in zip(work.salts, work.each(decays), strict=True)]
    if work.offsets is None:
        return jnp.asarray(np.array(rows, np.uint32).reshape(-1, 3))
    moved = [
        jnp.stack([place(np.uint32(moments), at), place(np.uint32(param), at), jnp.uint32(how)])
        for (moments, param, how), at in zip(rows, work.offsets, strict=True)
    ]
    return jnp.stack(moved)


def _terms(work: Work) -> jax.Array:
    """What stands behind the direction, as one multiple of it and one of the weight; leaves alike share a row."""
    terms, which = work.kinds()
    rows = jnp.stack(list(map(_row, terms)))
    return rows[np.array(which)] if len(terms) > 1 else jnp.broadcast_to(rows, (len(which), 2))


def _row(terms: Sequence[Term]) -> jax.Array:
    scale, decay = jnp.float32(1), jnp.float32(0)
    for term in terms:
        if term.decay is not None:
            decay = decay + jnp.asarray(term.decay).astype(jnp.float32)
        if term.scale is not None:
            by = jnp.asarray(term.scale).astype(jnp.float32)
            scale, decay = scale * by, decay * by
    return jnp.stack([scale, decay])
