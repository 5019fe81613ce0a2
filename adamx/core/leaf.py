"""Algorithm 1 on one leaf, from gradient to parameter: what every executor of a step does."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from adamx import numerics
from adamx.core import in_blocks
from adamx.core.averages import Averages
from adamx.core.leaf_norms import leaf_norms
from adamx.numerics import Scalar
from adamx.storage.codec import is_half
from adamx.storage.dither import Thresholds
from adamx.storage.rounding import sum_to_24_bits, sum_to_bfloat16, to_narrow
from adamx.storage.split import join, split, widen
from adamx.trees import result_dtype

PLAIN, MASTER, STOCHASTIC = range(3)
"""What a half-precision parameter has behind it: nothing, a float32 weight, or a dither."""


class Leaf(NamedTuple):
    """What belongs to one leaf of the parameters.

    Attributes:
        gradient: an array of the parameter's shape; None after the step.
        param: the parameter.
        remainder: what its float32 weight has beyond it, see `with_master_weights`; None where there is nothing.
        mu: m as it is stored.
        nu: v as it is stored.
        norms: float32 numbers of shape (3,), if asked for: of gradient, update and weight, see `leaf_norms`.
    """

    gradient: Any
    param: Any
    remainder: Any
    mu: Any
    nu: Any
    norms: Any = None


class Numbers(NamedTuple):
    """The scalars of a step, in float32, or float64 under x64.

    Attributes:
        factor: what gradients are multiplied by first; None: nothing.
        b1: β1.
        b2: β2.
        weight1: 1-β1^t.
        weight2: 1-β2^t.
        weight1_next: 1-β1^(t+1).
        eps: ε.
        eps_root: ε_root.
        moments_step: the clock of the moments' dither, uint32.
        params_step: the clock of the parameters' dither, uint32.
    """

    factor: Any
    b1: Any
    b2: Any
    weight1: Any
    weight2: Any
    weight1_next: Any
    eps: Any
    eps_root: Any
    moments_step: Any
    params_step: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Rule:
    """What is known of a step when it is compiled.

    Attributes:
        averages: lines 7 and 8; a decay rate that is an array is None there.
        eps: ε, or None if it is an array.
        nesterov: whether m looks one step ahead.
        behind: PLAIN, MASTER or STOCHASTIC.
    """

    averages: Averages
    eps: float | None
    nesterov: bool
    behind: int

    def with_numbers(self, numbers: Numbers) -> tuple[Averages, Scalar, Scalar]:
        """The averages and ε with the numbers of the step in the place of what is not known; and β1."""
        averages: Any = self.averages
        for name in ("b1", "b2"):
            if getattr(averages, name) is None:
                averages = averages.replace(**{name: getattr(numbers, name)})
        return averages, numbers.eps if self.eps is None else self.eps, averages.b1


@functools.partial(jax.tree_util.register_dataclass, data_fields=["decay", "scale"], meta_fields=["cautious"])
@dataclasses.dataclass(frozen=True)
class Term:
    """What one stage behind the direction u does to it on one leaf: `u + decay θ`, then `scale u`; None: nothing.

    Attributes:
        decay: what the weight is multiplied by before it is added.
        scale: what the sum is multiplied by.
        cautious: whether elements where `decay θ` and u differ in sign do not decay.
    """

    decay: Scalar | None = None
    scale: Scalar | None = None
    cautious: bool = False


def step_leaf(
    rule: Rule, numbers: Numbers, leaf: Leaf, terms: Sequence[Term], of_moments: Thresholds, of_param: Thresholds
) -> Leaf:
    """Steps one leaf: Algorithm 1 with everything that follows line 11 in the chain.

    Kingma & Ba (2015), arXiv 1412.6980, Algorithm 1, lines 5 to 12, with what stands behind line 11 in the chain.

    Args:
        rule: what is known.
        numbers: of the step.
        leaf: before the step.
        terms: of the stages behind the direction, in their order: weight decay, learning rate, a factor by path.
        of_moments: the dither of the moments.
        of_param: the dither of the parameter.
    """
    averages, eps, b1 = rule.with_numbers(numbers)
    g = leaf.gradient if numbers.factor is None else scaled(numbers.factor, leaf.gradient)
    walk = of_moments if averages.draws else None
    m, v, mu, nu = in_blocks.step(averages, g, leaf.mu, leaf.nu, walk)  # lines 7 and 8
    u = direction(rule, numbers, m, v, g, b1, eps)  # lines 9 to 11
    start = weight_behind(leaf.param, leaf.remainder)
    for term in terms:
        u = behind_direction(term, u, start)
    param, remainder = land(rule.behind, leaf.param, leaf.remainder, start, u, of_param)
    norms = None if leaf.norms is None else leaf_norms(leaf.gradient, u, weight_behind(param, remainder))
    return Leaf(None, param, remainder, mu, nu, norms)


def direction(rule: Rule, numbers: Numbers, m: jax.Array, v: jax.Array, g: Any, b1: Scalar, eps: Scalar) -> jax.Array:
    """Lines 9 to 11 of Algorithm 1, without the α; with Nesterov's momentum in the place of line 9."""
    real = numerics.real_dtype(m.dtype)
    weight1, weight2, eps_root = numbers.weight1.astype(real), numbers.weight2.astype(real), numbers.eps_root
    if rule.nesterov:
        m_next = numerics.divide(m, numbers.weight1_next.astype(real))
        g_now = numerics.divide(jnp.asarray(g, m.dtype), weight1)
        m_hat = numerics.look_ahead(numerics.as_scalar(b1, real), m_next, g_now)
    else:
        m_hat = numerics.divide(m, weight1)
    return numerics.direction(m_hat, v / weight2, numerics.as_scalar(eps, real), eps_root.astype(real))


def scaled(factor: Scalar, x: Any) -> jax.Array:
    """An array times a real number, in float32 or wider."""
    wide = jnp.asarray(x, numerics.compute_dtype(jnp.result_type(x)))
    return numerics.as_scalar(factor, wide.dtype) * wide


def behind_direction(term: Term, u: Any, start: Any) -> Any:
    """What a stage makes of an update, see `Term`."""
    if term.decay is not None:
        dtype = result_dtype(u, start)
        u, decay = jnp.asarray(u, dtype), numerics.as_scalar(term.decay, dtype) * jnp.asarray(start, dtype)
        u = jnp.where(opposes(decay, u), u, u + decay) if term.cautious else u + decay
    return u if term.scale is None else scaled(term.scale, u)


def opposes(a: jax.Array, b: jax.Array) -> jax.Array:
    """Whether elements differ in sign, `a b < 0`, also where the product vanishes; of complex ones `Re(a b̄) < 0`."""
    if jnp.iscomplexobj(a) or jnp.iscomplexobj(b):
        return jnp.real(jnp.sign(a) * jnp.conj(jnp.sign(b))) < 0
    return ((a < 0) & (b > 0)) | ((a > 0) & (b < 0))


def to_float32(x: Any) -> jax.Array:
    """Half precision as float32, exactly; anything wider as it is."""
    dtype = jnp.result_type(x)
    if dtype == jnp.bfloat16:
        return widen(jnp.asarray(x))
    return jnp.asarray(x, jnp.float32) if is_half(dtype) else jnp.asarray(x)


def weight_behind(p: Any, remainder: Any = None) -> jax.Array:
    """The float32 weight behind a parameter; the parameter itself where something else has set it since."""
    if remainder is None:
        return to_float32(p)
    p, remainder = jnp.asarray(p), jnp.asarray(remainder)
    if p.dtype == jnp.bfloat16:
        return join(p, remainder)
    return jnp.where(_bits(remainder.astype(p.dtype)) == _bits(p), remainder, p.astype(remainder.dtype))


def _bits(x: jax.Array) -> jax.Array:
    """The bits of a narrow number: a compiler may skip a rounding and its way back, but not this."""
    return jax.lax.bitcast_convert_type(x, jnp.uint16 if x.dtype.itemsize == 2 else jnp.uint8)


def master_sum(start: jax.Array, u: Any, remainder: jax.Array, walk: Thresholds | None) -> jax.Array:
    """A master weight after an update, in float32: rounded by dither to what the state keeps, if that is 24 bits."""
    if remainder.dtype != jnp.uint8:
        return (start + u).astype(jnp.float32)
    assert walk is not None
    return sum_to_24_bits(start, jnp.asarray(u, jnp.float32), walk.thresholds(start.shape))


def land(behind: int, p: Any, remainder: Any, start: jax.Array, u: Any, walk: Thresholds) -> tuple[jax.Array, Any]:
    """The parameter after an update, and what remains behind it.

    Args:
        behind: PLAIN, MASTER or STOCHASTIC; a leaf of float32 or wider has nothing behind it.
        p: the parameter before.
        remainder: of a MASTER.
        start: its weight.
        u: what is added to the weight.
        walk: the dither of a STOCHASTIC one, and of a MASTER of 24 bits.
    """
    p, dtype = jnp.asarray(p), result_dtype(start, u)
    if behind == MASTER and remainder is not None:
        moved = master_sum(start, u, remainder, walk)
        if p.dtype != jnp.bfloat16:
            return jax.lax.optimization_barrier(moved.astype(p.dtype)), moved
        upper, lower = split(moved, remainder.dtype)
        finite = jnp.abs(widen(upper)) < jnp.inf  # what rounds to infinity has no finite weight behind it
        return upper, jnp.where(finite, lower, jnp.zeros_like(lower))
    if behind == STOCHASTIC and is_half(p.dtype):
        bits = walk.thresholds(p.shape)
        if p.dtype == jnp.bfloat16:
            return sum_to_bfloat16(start, jnp.asarray(u, jnp.float32), bits), None
        return to_narrow(start + jnp.asarray(u, jnp.float32), p.dtype, bits), None
    return (jnp.asarray(start, dtype) + jnp.asarray(u, dtype)).astype(p.dtype), None
