"""Algorithm 1 of Kingma & Ba (2015) in float64 NumPy, in the paper's letters: what every other form is held against."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np


class Trajectory(NamedTuple):
    """The steps of `reference_adam`; the first axis of each array is the step, from 1 on.

    Attributes:
        theta: the parameters θ_t.
        update: θ_t - θ_{t-1} as the algorithm states it, before it is rounded into θ.
        m: the first moments.
        v: the second moments.
    """

    theta: np.ndarray
    update: np.ndarray
    m: np.ndarray
    v: np.ndarray


def reference_adam(
    theta: Any,
    gradients: Iterable[Any],
    alpha: float | Callable[[int], Any] = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    epsilon_root: float = 0.0,
    *,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> Trajectory:
    """Runs Adam on one array in float64 (complex128 for complex arrays).

    Args:
        theta: θ_0, of any shape.
        gradients: g_1, g_2, ..., each of the shape of θ.
        alpha: α, or a schedule from the number of steps taken before to α, as in optax.
        beta1: β1.
        beta2: β2.
        epsilon: ε.
        epsilon_root: a term inside the root, optax's `eps_root`.
        weight_decay: λ of AdamW, multiplied by α.
        nesterov: m̂ as NAdam has it in optax.

    Returns:
        The whole trajectory.

    Raises:
        ValueError: a gradient whose shape is not that of θ, or no gradient.

    Example:
        >>> from adamx.testing import reference_adam
        >>> path = reference_adam([0.0], [[10.0]], alpha=0.1, beta1=0.2)
        >>> float(path.m[0, 0]), round(float(path.theta[0, 0]), 6)
        (8.0, -0.1)
    """
    theta = np.asarray(theta)
    wide = np.complex128 if np.iscomplexobj(theta) else np.float64
    theta = theta.astype(wide)
    m, v = np.zeros_like(theta), np.zeros(theta.shape)
    rows: list[tuple[np.ndarray, ...]] = []

    for t, gradient in enumerate(gradients, start=1):
        g = np.asarray(gradient).astype(wide)
        if g.shape != theta.shape:
            raise ValueError(f"gradient {t} has shape {g.shape}, θ has shape {theta.shape}")
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * np.abs(g) ** 2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        if nesterov:
            m_hat = beta1 * m / (1 - beta1 ** (t + 1)) + (1 - beta1) * g / (1 - beta1**t)
        alpha_t = float(alpha(t - 1)) if callable(alpha) else alpha
        denominator = np.sqrt(v_hat + epsilon_root) + epsilon
        quotient = np.divide(m_hat, denominator, out=np.zeros_like(m_hat), where=denominator > 0)
        update = -alpha_t * (quotient + weight_decay * theta)
        theta = theta + update
        rows.append((theta, update, m, v))
    if not rows:
        raise ValueError("reference_adam needs at least one gradient")
    return Trajectory(*(np.stack(column) for column in zip(*rows, strict=True)))
