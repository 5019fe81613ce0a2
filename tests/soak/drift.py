"""How far the second moment is from float64 after many steps of normal gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import adamx

CHUNK = 10**4
SIZE = 8


@functools.partial(jax.jit, static_argnames=("tx", "b2"))
def run(carry, key, *, tx, b2):
    """A chunk of steps: of the transformation, and of line 8 in float64."""

    def step(carry, g):
        t, nu, exact = carry
        wide = g.astype(jnp.float64)
        exact = b2 * exact + (1 - b2) * wide * wide
        _, state = tx.update(g, adamx.MomentsState(t, jnp.zeros(SIZE, jnp.float32), nu))
        return (state.count, state.nu, exact), None

    return jax.lax.scan(step, carry, jax.random.normal(key, (CHUNK, SIZE), jnp.float32))[0]


def drift(b2, steps, **arguments):
    """The relative error of v in each of eight elements after so many steps. Needs x64."""
    tx = adamx.scale_by_moments(b2=b2, **arguments)
    carry = (jnp.int32(0), jnp.zeros(SIZE, jnp.float32), jnp.zeros(SIZE, jnp.float64))
    for key in jax.random.split(jax.random.key(0), steps // CHUNK):
        carry = run(carry, key, tx=tx, b2=b2)
    count, nu, exact = carry
    assert (int(count), nu.dtype) == (steps, jnp.float32)
    return np.abs(np.asarray(nu / exact) - 1)
