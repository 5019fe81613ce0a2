"""A stage from a function: between the averages and the quotient, or the quotient itself."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx import numerics
from adamx.core.composition import no_state
from adamx.core.message import Message, Moments, check_message
from adamx.trees import map_leaves


def between(
    name: str, change: Callable[[Any], Message], kind: type[Message] = Message
) -> optax.GradientTransformationExtraArgs:
    """A stage between stage 1 and stage 2, from a function of the message.

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


def _nothing(moments: Any) -> tuple[()]:
    return ()


def quotient(
    name: str,
    formula: Callable[..., jax.Array],
    kind: type[Message] = Moments,
    given: Callable[[Any], tuple[Any, ...]] = _nothing,
) -> optax.GradientTransformationExtraArgs:
    """A stage 2, from a formula on the arrays of one leaf.

    Args:
        name: how the stage is called, for the errors: `"bias_correction()"`.
        formula: from m̂ and v̂ of a leaf, in compute precision, to the direction u.
        kind: the message that it divides.
        given: from the message to what the formula takes besides, for all leaves.

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
        rest = given(moments)

        def direction(m_hat: jax.Array, v_hat: jax.Array, g: jax.Array) -> tuple[jax.Array]:
            u = formula(m_hat, v_hat, *rest)
            return (numerics.to_dtype(u, update_dtype(g, u)),)

        return map_leaves(direction, 1, moments.m_hat(), moments.v_hat(), moments.gradients)[0], state  # lines 9 to 11

    return optax.GradientTransformationExtraArgs(no_state, update)


def update_dtype(g: Any, direction: jax.Array) -> jnp.dtype:
    """The gradient's dtype; float32 for a float8 gradient, complex where the parameter is."""
    dtype = jnp.result_type(g)
    if jnp.finfo(dtype).bits < 16 or jnp.iscomplexobj(direction) != jnp.issubdtype(dtype, jnp.complexfloating):
        return direction.dtype
    return dtype
