"""What is measured of one leaf in one step, each a number."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adamx import numerics, shards
from adamx.numerics import Scalar


class Measurement(NamedTuple):
    """The measurements of one leaf in one step. Elements with v = 0 never had a gradient and count as 0.

    Attributes:
        step: t, when this was measured; 0: not yet.
        signal_to_noise: the mean of |m̂|/√v̂, from 1 (all gradients agree) to 0 (they cancel).
        above_rate: the share of elements whose step α m̂/√v̂ is longer than α.
        above_bound: the share of those that are longer than the paper's bound, `α max(1, (1-β1)/√(1-β2))`.
        spike: the root mean square of g/√v̂, about 1; above 2 the gradients have outgrown v and steps are too long
            (Wortsman et al., 2023, arXiv 2304.13013, section 3.4). A sign of a spike, not a warning: it was above 2
            before 8 of 67 onsets of a spike of the loss, within 11 steps after the other 59, and before all 67 peaks
            (`python benchmarks/diagnostics.py --untimed`).
        cosine: of the angle between m and g.
        update_ratio: the norm of the update over that of the parameter, about α at a parameter of size 1.
        stalled: the share of elements that have an update and do not move: it is below half a unit in their last place.
        skipped: the steps that `skip_nonfinite` and `skip_spikes` skipped so far.
    """

    step: float
    signal_to_noise: float
    above_rate: float
    above_bound: float
    spike: float
    cosine: float
    update_ratio: float
    stalled: float
    skipped: float = 0.0


MEASURED = Measurement._fields[1:-1]
"""What one leaf is measured for, in the order of `measure`."""

UNKNOWN = -1.0
"""In place of an `update_ratio` or `stalled` that cannot be measured: NaN would stop `jax_debug_nans`."""

Weights = tuple[jax.Array, jax.Array]


def on_host(measured: jax.Array) -> list[list[float]]:
    """The rows that `measure` gave as Python numbers, NaN in the place of UNKNOWN."""
    rows = np.array(measured, np.float64)
    for name in ("update_ratio", "stalled"):
        column = rows[:, MEASURED.index(name)]
        column[column == UNKNOWN] = math.nan
    return rows.tolist()


def paper_bound(b1: Scalar, b2: Scalar) -> jax.Array:
    """Kingma & Ba, section 2.1: the largest step over α, `(1-β1)/√(1-β2)` where that is above 1, else 1."""
    b1, b2 = (jnp.asarray(b, jnp.float32) for b in (b1, b2))
    return jnp.maximum(1.0, (1 - b1) / jnp.sqrt(1 - b2))


def half_ulp(p: jax.Array) -> jax.Array:
    """Half the distance of p, of any dtype, to the next number of its dtype, as float32."""
    info = jnp.finfo(p.dtype)
    size = jnp.maximum(jnp.abs(p.astype(jnp.float32)), float(info.smallest_normal))
    exponent = jnp.frexp(size)[1] - 1
    return jnp.ldexp(jnp.float32(1), exponent) * (float(info.eps) / 2)


def measure(
    g: jax.Array,
    m: jax.Array,
    v: jax.Array,
    p: jax.Array | None,
    weights: Weights,
    alpha: Scalar | None,
    bound: jax.Array,
    axes: shards.Axes = (),
) -> jax.Array:
    """The numbers of `MEASURED` for one leaf, float32.

    Args:
        g: the gradient.
        m: the first moment after it.
        v: the second.
        weights: what m̂ and v̂ divide them by.
        p: the parameter before the step; None: what needs it is UNKNOWN.
        alpha: α, the learning rate; None: what needs it is UNKNOWN.
        bound: of the step over α, `paper_bound`.
        axes: of the mesh, over which the leaf is split; see `adamx.shards`.
    """
    if g.size == 0:
        return jnp.zeros(len(MEASURED), jnp.float32)
    m_hat, v_hat = (numerics.divide(x, w.astype(v.dtype)) for x, w in zip((m, v), weights, strict=True))
    ratio = _ratio(m_hat, v_hat)
    if p is None or alpha is None:
        of_update = [UNKNOWN, UNKNOWN]
    else:
        update = jnp.asarray(alpha, ratio.dtype) * ratio
        of_update = [_quotient(_norm(update, axes), _norm(p, axes)), _share_that_stays(update, p, axes)]
    spike = jnp.sqrt(shards.mean(_ratio(g, v_hat) ** 2, axes))
    above = [shards.share(ratio > limit, axes, jnp.float32) for limit in (1, bound.astype(ratio.dtype))]
    numbers = [shards.mean(ratio, axes), *above, spike, _cosine(m, g, axes), *of_update]
    return jnp.stack([jnp.asarray(x, jnp.float32) for x in numbers])


def _cosine(x: jax.Array, y: jax.Array, axes: shards.Axes) -> jax.Array:
    (x, _), (y, _) = _scaled(x, axes), _scaled(y, axes)
    return _quotient(shards.total(jnp.sum((x.conj() * y).real), axes), _norm(x, axes) * _norm(y, axes))


def _ratio(x: jax.Array, v: jax.Array) -> jax.Array:
    """`|x| / √v`, 0 where v is 0."""
    size = jnp.abs(jnp.asarray(x, numerics.compute_dtype(x.dtype)))
    return jnp.where(v == 0, 0, size / jnp.sqrt(jnp.where(v == 0, 1, v)))


def _share_that_stays(update: jax.Array, p: jax.Array, axes: shards.Axes) -> jax.Array:
    if jnp.iscomplexobj(p):
        return jnp.float32(UNKNOWN)
    share = shards.share((update > 0) & (update < half_ulp(p)), axes, jnp.float32)
    return jnp.where(jnp.isnan(shards.total(jnp.sum(update * 0), axes)), jnp.nan, share)  # a maximum drops NaN


def _scaled(x: jax.Array, axes: shards.Axes) -> tuple[jax.Array, jax.Array]:
    """Divides x by its largest magnitude, so that squares do not overflow; also gives that."""
    x = jnp.asarray(x, numerics.compute_dtype(x.dtype))
    largest = shards.largest(jnp.max(jnp.abs(x)), axes)
    scale = jnp.where((largest > 0) & (largest < math.inf), largest, 1)
    return numerics.divide(x, scale), scale


def _norm(x: jax.Array, axes: shards.Axes) -> jax.Array:
    x, scale = _scaled(x, axes)
    return scale * jnp.sqrt(shards.total(jnp.sum(numerics.square(x)), axes))


def _quotient(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))
