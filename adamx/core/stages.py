"""What stands behind stage 1: stages that change the moments, and stage 2, lines 9 to 11 of Algorithm 1 without α."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx import hyperparameters, numerics
from adamx.core.message import Message, Moments, check_message
from adamx.hyperparameters import names_hints
from adamx.numerics import Scalar
from adamx.trees import map_leaves


def no_state(params: optax.Params) -> optax.OptState:
    """The init of a stage that keeps nothing."""
    return optax.EmptyState()


def between(
    name: str, change: Callable[[Any], Message], kind: type[Message] = Message
) -> optax.GradientTransformationExtraArgs:
    """Makes a stage between stage 1 and stage 2 from a function of the message.

    Args:
        name: how the stage is called, for the errors: `"nesterov()"`.
        change: from `Moments` to `Moments`, by `moments.replace(...)`.
        kind: the message that it is right for; `Moments` where it needs a v that averages squares.

    Returns:
        A stateless transformation from the message to the message.

    Raises:
        TypeError: its update gets anything but that message.

    Example:
        >>> import jax, jax.numpy as jnp, optax, adamx
        >>> signs = adamx.between("signs()", lambda moments: moments.replace(mu=jax.tree.map(jnp.sign, moments.mu)))
        >>> tx = optax.chain(adamx.scale_by_moments(), signs, adamx.uncorrected())
        >>> tx.init(jnp.zeros(1))[1]
        EmptyState()
    """

    def update(
        updates: Any, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[Any, optax.OptState]:
        return change(check_message(name, updates, kind)), state

    return optax.GradientTransformationExtraArgs(no_state, update)


def quotient(
    name: str,
    formula: Callable[..., jax.Array],
    kind: type[Message] = Moments,
    given: Callable[[Any], tuple[Any, ...]] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Makes a stage 2 from a formula on the arrays of one leaf.

    Args:
        name: how the stage is called, for the errors: `"bias_correction()"`.
        formula: from m̂ and v̂ of a leaf, in compute precision, to the direction u.
        kind: the message that it divides.
        given: from the message to what the formula takes besides, for all leaves; None: nothing.

    Returns:
        A stateless transformation from the message to the direction, a tree of the parameters' shapes in the dtype of
        the gradients (float32 for float8 gradients, complex where m is).

    Raises:
        TypeError: its update gets anything but that message.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> sign = adamx.quotient("sign()", lambda m_hat, v_hat: jnp.sign(m_hat))
        >>> tx = optax.chain(adamx.scale_by_moments(), sign, adamx.scale_by_lr(0.1))
        >>> tx.update(jnp.array([-3.0]), tx.init(jnp.zeros(1)))[0]
        Array([0.1], dtype=float32)
    """

    def update(
        updates: Any, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        moments = check_message(name, updates, kind)
        rest = () if given is None else given(moments)

        def direction(m_hat: jax.Array, v_hat: jax.Array, g: jax.Array) -> tuple[jax.Array]:
            u = formula(m_hat, v_hat, *rest)
            return (u.astype(update_dtype(g, u)),)

        return map_leaves(direction, 1, moments.m_hat(), moments.v_hat(), moments.gradients)[0], state  # lines 9 to 11

    return optax.GradientTransformationExtraArgs(no_state, update)


def update_dtype(g: Any, direction: jax.Array) -> jnp.dtype:
    """The gradient's dtype; float32 for a float8 gradient, complex where the parameter is."""
    dtype = jnp.result_type(g)
    if jnp.finfo(dtype).bits < 16 or jnp.iscomplexobj(direction) != jnp.issubdtype(dtype, jnp.complexfloating):
        return direction.dtype
    return dtype


@names_hints
def bias_correction(eps: Scalar = 1e-8, eps_root: Scalar = 0.0) -> optax.GradientTransformationExtraArgs:
    """Corrects both moments for their start at zero, and divides the first by the root of the second.

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

    def formula(m_hat: jax.Array, v_hat: jax.Array) -> jax.Array:
        dtype = v_hat.dtype
        return numerics.direction(m_hat, v_hat, numerics.as_scalar(eps, dtype), numerics.as_scalar(eps_root, dtype))

    return quotient("bias_correction()", formula)


@names_hints
def uncorrected(eps: Scalar = 1e-8, eps_root: Scalar = 0.0) -> optax.GradientTransformationExtraArgs:
    """Divides without bias correction, `u_t = m_t / (√(v_t + ε_root) + ε)`: for ablations.

    Its first steps are wrong by `(1-β1)/√(1-β2)`, 3.2 at the defaults and 100 at β2 = 0.999999 (Kingma & Ba, section
    6.4).

    Args:
        eps: ε >= 0, in units of the gradient.
        eps_root: ε_root >= 0, in units of the squared gradient.

    Returns:
        A stateless transformation from `Moments` to the direction u, in the dtype of the gradients.

    Raises:
        ValueError, TypeError: as `bias_correction` does.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> tx = optax.chain(adamx.scale_by_moments(), adamx.uncorrected())
        >>> direction, _ = tx.update(jnp.array([10.0]), tx.init(jnp.zeros(1)))
        >>> direction.round(2)
        Array([3.1599998], dtype=float32)
    """
    corrected = bias_correction(eps, eps_root)

    def update(
        updates: Any, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        moments = check_message("uncorrected()", updates)
        return corrected.update(moments.replace(m_hat=moments.mu, v_hat=moments.nu), state, params)

    return optax.GradientTransformationExtraArgs(no_state, update)
