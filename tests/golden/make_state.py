"""Writes state_0_1_0.npz: states of this version after 10 steps, and the parameters after 10 more.

Run `python tests/golden/make_state.py` once for a released version and keep the file: later versions must restore it.
Leaves are stored in the order of their paths, bfloat16 as the integers of its bits.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamx

STEPS = 10
INT8 = adamx.storage.Int8(block_size=32, min_size=0)
SETTINGS = {
    "adam": (adamx.adam(1e-2), jnp.float32),
    "adamw with schedules": (
        adamx.adamw(optax.linear_schedule(1e-2, 0.0, 30), weight_decay=optax.linear_schedule(0.1, 0.0, 30)),
        jnp.float32,
    ),
    "int8": (adamx.adam(1e-2, mu_dtype=INT8, nu_dtype=INT8), jnp.float32),
    "bfloat16, dithered": (adamx.adam(1e-2, mu_dtype="bfloat16", nu_dtype="bfloat16"), jnp.float32),
    "master weights": (adamx.with_master_weights(adamx.adam(1e-2)), jnp.bfloat16),
    "stochastic rounding": (adamx.with_stochastic_rounding(adamx.adam(1e-2, nu_dtype="float16")), jnp.bfloat16),
}


def draw(seed: int, dtype: Any) -> Any:
    """Gradients, and parameters: from the bits of integers, so that they are the same everywhere."""
    random = np.random.default_rng(seed)
    sizes = {"layer": {"w": (4, 100), "b": (3,)}}
    return jax.tree.map(
        lambda shape: jnp.asarray((random.integers(-999, 999, shape) / 512).astype(np.float32), dtype),
        sizes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def train(tx: optax.GradientTransformation, params: Any, state: Any, first: int) -> tuple[Any, Any]:
    """As many steps from the given one on."""

    @jax.jit
    def step(params: Any, state: Any, gradients: Any) -> tuple[Any, Any]:
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    for t in range(first, first + STEPS):
        params, state = step(params, state, draw(t, params["layer"]["b"].dtype))
    return params, state


def stored(tree: Any) -> dict[str, np.ndarray]:
    """Leaves by path."""
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        array = np.asarray(leaf)
        bits = array.view(np.uint16) if array.dtype == jnp.bfloat16 else array
        found[jax.tree_util.keystr(path, simple=True, separator="/")] = bits
    return found


def main() -> None:
    """Trains and writes the file."""
    found = {}
    for name, (tx, dtype) in SETTINGS.items():
        params = draw(1000, dtype)
        params, state = train(tx, params, tx.init(params), 0)
        after, last = train(tx, params, state, STEPS)
        for kind, tree in (("params", params), ("state", state), ("after", after), ("last", last)):
            found |= {f"{name}: {kind}: {path}": leaf for path, leaf in stored(tree).items()}
    file = Path(__file__).with_name(f"state_{adamx.__version__.replace('.', '_')}.npz")
    np.savez_compressed(file, **found)
    print(f"{len(SETTINGS)} states in {file.name}, {file.stat().st_size} bytes, jax {jax.__version__}")


if __name__ == "__main__":
    main()
