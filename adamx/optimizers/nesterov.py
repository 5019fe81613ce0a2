"""Nesterov's momentum, Dozat (2016): the stage that makes NAdam of Adam."""

import jax
import jax.numpy as jnp
import optax

from adamx import numerics
from adamx.core.message import Message, Weight, correct
from adamx.core.stages import between
from adamx.core.state import increment
from adamx.trees import map_leaves


def nesterov() -> optax.GradientTransformationExtraArgs:
    """Replaces m̂ by that of the next step (Nesterov's momentum), between stage 1 and stage 2.

    `m̂_t = β1 m_t / (1-β1^{t+1}) + (1-β1) g_t / (1-β1^t)`, which replaces line 9.

    Dozat, "Incorporating Nesterov Momentum into Adam" (2016), Algorithm 2, without its factor β2 on v̂, as in optax.

    Returns:
        A stateless transformation from `Moments` to `Moments` whose m is corrected already.

    Raises:
        TypeError: its update does not get `Moments`.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> tx = optax.chain(adamx.scale_by_moments(), adamx.nesterov(), adamx.bias_correction())
        >>> direction, _ = tx.update(jnp.array([1.0]), tx.init(jnp.zeros(1)))
        >>> direction.round(4)
        Array([1.4736999], dtype=float32)
    """

    def widen(g: jax.Array, m: jax.Array) -> tuple[jax.Array]:
        return (jnp.asarray(g, m.dtype),)

    def change(moments: Message) -> Message:
        weight = moments.mu_weight
        if not isinstance(weight, Weight):
            raise TypeError("nesterov() must come right behind scale_by_moments(): m is corrected already")

        def ahead(m_next: jax.Array, g_now: jax.Array) -> tuple[jax.Array]:
            return (numerics.look_ahead(numerics.as_scalar(weight.decay, m_next.dtype), m_next, g_now),)

        m_next = correct(moments.mu, weight._replace(count=increment(weight.count)))
        g_now = correct(map_leaves(widen, 1, moments.gradients, moments.mu)[0], weight)
        return moments.replace(m_hat=map_leaves(ahead, 1, m_next, g_now)[0])

    return between("nesterov()", change)
