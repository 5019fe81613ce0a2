"""Stage 2, lines 9 to 11 of Algorithm 1 without its α: the bias correction and the quotient."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx import hyperparameters, numerics
from adamx.core.composition import no_state
from adamx.core.message import Weight, check_is_moments
from adamx.hyperparameters import names_hints
from adamx.numerics import Scalar
from adamx.trees import Tree, map_leaves


def correct(moment: Tree, weight: Weight | float) -> Tree:
    """`moment / (1 - β^t)` on every leaf; a weight of the number 1.0 says that it is corrected already."""
    if not isinstance(weight, Weight):
        return moment
    if weight.precise:
        return _divide(moment, numerics.ema_weight(weight.decay, weight.count, precise=True))
    return _weigh_and_divide(moment, weight.decay, weight.count)


@functools.partial(jax.jit, inline=True)
def _weigh_and_divide(moment: Tree, decay: Scalar, count: jax.Array) -> Tree:
    """One compiled function, also outside jit and over the whole tree, where alone it gives the bits of optax's."""
    return _divide(moment, numerics.ema_weight(decay, count))


def _divide(moment: Tree, weight: jax.Array) -> Tree:
    def formula(m: jax.Array) -> jax.Array:
        return numerics.divide(m, weight.astype(numerics.real_dtype(m.dtype)))

    return jax.tree.map(formula, moment)


def update_dtype(g: Any, direction: jax.Array) -> jnp.dtype:
    """The gradient's dtype; float32 for a float8 gradient, complex where the parameter is."""
    dtype = jnp.result_type(g)
    if jnp.finfo(dtype).bits < 16 or jnp.iscomplexobj(direction) != jnp.issubdtype(dtype, jnp.complexfloating):
        return direction.dtype
    return dtype


@names_hints
def bias_correction(eps: Scalar = 1e-8, eps_root: Scalar = 0.0) -> optax.GradientTransformationExtraArgs:
    """Divides both moments by the weight they have seen, and the first by the root of the second.

    `m̂_t = m_t / (1-β1^t)`, `v̂_t = v_t / (1-β2^t)`, `u_t = m̂_t / (√(v̂_t + ε_root) + ε)`.

    Kingma & Ba (2015), Algorithm 1, lines 9 to 11. The weights come with the `Moments`.

    Args:
        eps: ε >= 0, in units of the gradient. With ε = 0 a gradient that was always 0 gives 0.
        eps_root: ε_root >= 0, in units of the squared gradient.

    Returns:
        A stateless transformation from `Moments` to the direction u, a tree of the parameters' shapes in the dtype of
        the gradients (float32 for float8 gradients).

    Raises:
        ValueError: eps or eps_root negative, infinite, NaN or not a scalar.
        TypeError: eps or eps_root not a number; at update, anything but `Moments`.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> tx = optax.chain(adamx.scale_by_moments(b1=0.2), adamx.bias_correction(eps=0.0))
        >>> direction, _ = tx.update(jnp.array([10.0, 0.0]), tx.init(jnp.zeros(2)))
        >>> direction.round(2)
        Array([1., 0.], dtype=float32)
    """
    eps = hyperparameters.nonnegative("eps", eps)
    eps_root = hyperparameters.nonnegative("eps_root", eps_root)

    def direction(m_hat: jax.Array, v_hat: jax.Array, g: jax.Array) -> tuple[jax.Array]:
        epsilons = (numerics.as_scalar(e, v_hat.dtype) for e in (eps, eps_root))
        u = numerics.direction(m_hat, v_hat, *epsilons)
        return (u.astype(update_dtype(g, u)),)

    def update(
        updates: Any, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        moments = check_is_moments("bias_correction()", updates)
        m_hat = correct(moments.mu, moments.mu_weight)  # line 9
        v_hat = correct(moments.nu, moments.nu_weight)  # line 10
        return map_leaves(direction, 1, m_hat, v_hat, moments.gradients)[0], state  # line 11

    return optax.GradientTransformationExtraArgs(no_state, update)


@names_hints
def uncorrected(eps: Scalar = 1e-8, eps_root: Scalar = 0.0) -> optax.GradientTransformationExtraArgs:
    """The quotient without the correction, `u_t = m_t / (√(v_t + ε_root) + ε)`: for ablations.

    Its first steps are wrong by `(1-β1)/√(1-β2)`, 3.2 at the defaults and 100 at β2 = 0.999999 (Kingma & Ba, section
    6.4). Arguments, state and errors are those of `bias_correction`.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> tx = optax.chain(adamx.scale_by_moments(), adamx.uncorrected())
        >>> direction, _ = tx.update(jnp.array([10.0]), tx.init(jnp.zeros(1)))
        >>> direction.round(2)
        Array([3.1599998], dtype=float32)
    """
    quotient = bias_correction(eps, eps_root)

    def update(
        updates: Any, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        moments = check_is_moments("uncorrected()", updates)
        return quotient.update(moments.replace(mu_weight=1.0, nu_weight=1.0), state, params)

    return optax.GradientTransformationExtraArgs(no_state, update)
