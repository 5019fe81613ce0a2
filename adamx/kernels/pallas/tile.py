"""The whole step on one tile: the formulas and codecs of the composed stages, between one read and one write.

Triton divides to 2 units in the last place. On a GPU a code may therefore differ from that of XLA where its fraction
lies within a rounding error of its threshold, about one in 10^5; it is as right on average.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from adamx import numerics
from adamx.kernels.layout import DITHERED, INT8, MASTER, STOCHASTIC, Form, Leaf, Rule
from adamx.precision.half import to_float32
from adamx.storage import Float, Int8
from adamx.storage.codec import Quantized, Stored
from adamx.storage.dither import lower_half, thresholds_at
from adamx.storage.int8 import decode_blocks, encode_blocks
from adamx.storage.rounding import sum_to_bfloat16
from adamx.storage.split import join, split, widen


def step_tile(
    tile: Leaf,
    numbers: Sequence[jax.Array],
    counts: Sequence[jax.Array],
    salts: Sequence[jax.Array],
    places: jax.Array,
    form: Form,
    rule: Rule,
) -> Leaf:
    """A tile after the step.

    Args:
        tile: matrices, those of a moment's scale and top one column wide.
        numbers: of the step, float32; see `adamx/kernels/cpu/operands.h`.
        counts: the two counters of the dither, uint32.
        salts: where the dither of moments and parameter begins in the leaf, uint32, and whether the leaf decays.
        places: of the elements, relative to those.
        form: of the leaf.
        rule: of the step.
    """
    b1, _, b2, _, weight1, weight2, weight1_next, eps, eps_root, minus_rate, decay = numbers
    b1, b2 = (known if isinstance(known, float) else given for known, given in ((rule.b1, b1), (rule.b2, b2)))
    g, start = to_float32(tile.gradient), _weight(tile, form)
    bits = thresholds_at(salts[0] + places, counts[0])

    m = numerics.ema(b1, _decode(tile.mu), g, precise=rule.precise)  # line 7
    v = numerics.ema(b2, _decode(tile.nu), numerics.square(g), precise=rule.precise)  # line 8
    m = numerics.bound_first_moment(m, Int8().largest(tile.mu))
    v = numerics.saturate_second_moment(v, Int8().largest(tile.nu))
    mu = _encode(m, tile.mu, form.mu[0], lower_half(bits), square=False)
    nu = _encode(v, tile.nu, form.nu[0], bits, square=True)

    m_hat = m / weight1  # line 9
    if rule.nesterov:
        m_hat = numerics.clamp_look_ahead(numerics.ema(b1, m / weight1_next, g / weight1))
    u = numerics.direction(m_hat, v / weight2, eps, eps_root)  # lines 10 and 11
    u = minus_rate * jnp.where(salts[2] != 0, u + decay * start, u)
    random = thresholds_at(salts[1] + places, counts[1]) if form.weights == STOCHASTIC else None
    return Leaf(None, *_land(tile.param, start, u, form, random), mu, nu)


def _decode(stored: Stored) -> jax.Array:
    if isinstance(stored, Quantized):
        assert stored.top is not None
        return decode_blocks(stored.codes, stored.scale, stored.top)
    return to_float32(stored)


def _encode(moment: jax.Array, like: Stored, storage: int, bits: jax.Array, *, square: bool) -> Stored:
    if isinstance(like, Quantized):
        assert storage == INT8
        return Quantized(*encode_blocks(moment, bits, like.codes.dtype))
    return Float().encode(moment, like, bits if storage == DITHERED else None, square=square)


def _weight(tile: Leaf, form: Form) -> jax.Array:
    """The float32 weight that the step starts from."""
    return join(tile.param, tile.remainder) if form.weights == MASTER else to_float32(tile.param)


def _land(p: jax.Array, start: jax.Array, u: jax.Array, form: Form, bits: jax.Array | None) -> tuple[Any, Any]:
    """The parameter after an update, and what remains behind it."""
    if form.weights == MASTER:
        upper, lower = split(start + u)
        finite = jnp.abs(widen(upper)) < jnp.inf  # what rounds to infinity has no finite weight behind it
        return upper, jnp.where(finite, lower, jnp.zeros_like(lower))
    if form.weights == STOCHASTIC:
        assert bits is not None
        return sum_to_bfloat16(start, u, bits), None
    return (start + u).astype(p.dtype), None
