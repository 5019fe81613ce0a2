"""How far master weights of 24 bits go from those of 32."""

import jax
import jax.numpy as jnp
import numpy as np

import adamx

SHAPE = (32, 128)


def gap(x):
    """From a number to the next one of 24 bits: 16 binary digits, the first included."""
    return 2.0 ** (np.floor(np.log2(np.maximum(np.abs(np.asarray(x, np.float64)), 2.0**-126))) - 15)


def distance(steps, rate=1e-4):
    """After so many steps of AdamW on N(0,1) gradients: mean, largest and mean signed distance.

    They are in units of `gap` of the weight, or of where it began if that was larger.
    """
    start = jnp.asarray(np.random.default_rng(0).standard_normal(SHAPE), jnp.bfloat16)

    def trained(bits):
        tx = adamx.with_master_weights(adamx.adamw(rate), bits)

        def step(carry, key):
            p, state = carry
            return adamx.step(tx, jax.random.normal(key, SHAPE).astype(jnp.bfloat16), state, p), None

        p, state = jax.jit(lambda carry: jax.lax.scan(step, carry, keys)[0])((start, tx.init(start)))
        return np.asarray(adamx.master_params(state, p), np.float64)

    keys = jax.random.split(jax.random.key(1), steps)
    exact, narrow = trained(32), trained(24)
    away = (narrow - exact) / gap(np.maximum(np.abs(exact), np.abs(np.asarray(start, np.float64))))
    return np.abs(away).mean(), np.abs(away).max(), away.mean()


if __name__ == "__main__":
    for many in (1_000, 10_000, 100_000):
        print(many, "mean {:.3g}, largest {:.3g}, mean signed {:.2g}".format(*distance(many)))
