"""Steps once with the adamx that is installed, and checks which code ran the step.

    python -P tests/installed.py native

Its argument is the name of the expected backend. CI runs it on the wheels of each platform.
"""

import sys

import jax
import jax.numpy as jnp

import adamx

BELOW_ONE = 1 - 1e-3
"""Adam's first step has the length of the learning rate."""


def main(expected: str) -> None:
    backend = adamx.kernels.backend()
    assert backend.name == expected, f"expected {expected}, got {backend}"
    tx, x = adamx.adam(1e-3), jnp.ones(100_000)
    step = jax.jit(lambda x, state: adamx.step(tx, x, state, x))
    text = step.lower(x, tx.init(x)).as_text()
    assert ("adamx_step" in text) == (expected == "native"), text
    params, state = step(x, tx.init(x))
    assert jnp.allclose(params, BELOW_ONE, rtol=1e-6), params
    assert state[0].count == 1
    print(f"adamx {adamx.__version__} at {adamx.__path__[0]}: {backend}")


if __name__ == "__main__":
    main(sys.argv[1])
