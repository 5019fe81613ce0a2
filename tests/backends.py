"""What tests of the fused step share: the mark for those that need the native kernel, and comparisons by bits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx

needs_kernel = pytest.mark.skipif(
    adamx.kernels.backend().name != "native", reason=f"no kernel ({adamx.kernels.backend().detail})"
)


def jitted(tx, **extra):
    """`adamx.step` as `step(params, state, gradients)`, with extra arguments."""
    return jax.jit(lambda params, state, gradients: adamx.step(tx, gradients, state, params, **extra))


def composed(tx, **extra):
    """`update` and `apply_updates` as `step(params, state, gradients)`: what every executor of a step is held to."""

    def step(params, state, gradients):
        updates, state = optax.with_extra_args_support(tx).update(gradients, state, params, **extra)
        return optax.apply_updates(params, updates), state

    return jax.jit(step)


def stepped(tx, through="step"):
    """One of the two ways to run a transformation: "step" or "update"."""
    return jitted(tx) if through == "step" else composed(tx)


def ulps(a, b, reference=0.0):
    """The largest difference of two arrays in units in the last place of the largest of both and a reference.

    Units are those of the dtype of `a`. Bits that are equal differ by 0, NaN from NaN as well.
    """
    info = jnp.finfo(jnp.result_type(a))
    a, b, reference = (np.asarray(jnp.asarray(x).astype(jnp.float32), np.float64) for x in (a, b, reference))
    size = np.maximum(np.maximum(np.abs(a), np.abs(b)), np.abs(reference))
    smallest = float(info.smallest_normal)
    with np.errstate(invalid="ignore"):
        unit = 2.0 ** np.floor(np.log2(np.clip(size, smallest, float(info.max)))) * float(info.eps)
        distance = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b) / unit)
    return float(np.max(distance, initial=0.0))


def differing(got, expected):
    """The paths of the leaves of two trees that are not equal to the bit; NaN is NaN, whatever its own bits are."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected), strict=True)
    return [jax.tree_util.keystr(path) for (path, a), b in pairs if a.dtype != b.dtype or _bits(a) != _bits(b)]


def _bits(x):
    x = np.asarray(x)
    return np.where(x != x, np.ones_like(x), x).tobytes() + (x != x).tobytes()
