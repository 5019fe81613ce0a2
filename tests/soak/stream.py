"""Gradients that are a function of the step: the device makes them in its loop, and NumPy the same for float64."""

import jax
import jax.numpy as jnp
import numpy as np

SIZE = 8
"""Elements of the parameter: one vector register, so that 2^31 updates take minutes."""


def gradient(t):
    """Numbers that look drawn from [-1, 1), exact in float32, for a uint32 step: of a JAX scalar or a NumPy column."""
    xp = jnp if isinstance(t, jax.Array) else np
    x = t * np.uint32(SIZE) + xp.arange(SIZE, dtype=np.uint32)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> shift)) * np.uint32(factor)
    x = x ^ (x >> 16)
    return (x >> 8).astype(np.float32) * np.float32(2**-23) - np.float32(1)


def exact_moments(last, b1, b2):
    """m and v in float64 after the steps up to `last`, from as many gradients as matter: β^n below 2^-60.

    For `last` of many thousand, where the start from 0 is forgotten.
    """

    def average(beta, power):
        n = int(60 * np.log(0.5) / np.log(beta)) + 1
        ages = np.arange(n)
        assert last > n
        column = (last - ages).astype(np.uint32)[:, None]
        return (1 - beta) * (beta**ages) @ gradient(column).astype(np.float64) ** power

    return average(b1, 1), average(b2, 2)


def exact_updates(first, steps, m, v, b1, b2, eps):
    """The directions of Algorithm 1 in float64 in `steps` steps from `first` on, where 1-β^t is 1."""
    found = []
    for g in gradient(np.arange(first, first + steps, dtype=np.int64).astype(np.uint32)[:, None]).astype(np.float64):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        found.append(m / (np.sqrt(v) + eps))
    return np.stack(found)
