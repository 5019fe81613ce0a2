"""What several test files share: trees of every container, streams of gradients, x64, and what is run on demand."""

import gc
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.thinned import left_to_the_night

collect_ignore_glob = ["golden/make_*.py"]  # programs, not tests, as are:
collect_ignore = [
    "mutations.py",
    "sharded.py",
    "zero.py",
    "layouts.py",
    "distributed.py",
    "meshes.py",
    "manual.py",
    "backends.py",
    "family.py",
]


gc.set_threshold(100_000, 20, 100)
"""A collection walks the heap of the whole run, and JAX's beside it: at the defaults, a tenth of the time."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what the default run leaves to the nightly one as slow."""
    for item in left_to_the_night(items):
        item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Leaves what was imported out of every further garbage collection."""
    gc.collect()
    gc.freeze()


class Layer(NamedTuple):
    kernel: Any
    bias: Any


@pytest.fixture
def x64():
    """Turns 64-bit types on for one test."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def draw():
    """A function from (seed, dtype) to a nested tree of normal numbers: every container, a scalar, an empty leaf."""

    def tree(seed: int, dtype: Any = jnp.float32, scale: float = 1.0) -> Any:
        random = np.random.default_rng(seed)

        def leaf(*shape: int) -> jax.Array:
            x = random.standard_normal(shape) * scale * (random.random(shape) > 0.1)
            if jnp.issubdtype(dtype, jnp.complexfloating):
                x = x + 1j * random.standard_normal(shape) * scale
            return jnp.asarray(x, dtype)

        return {
            "encoder": [Layer(leaf(17, 5), leaf()), (None,)],
            "empty": leaf(0, 3),
            "wide": {"a": leaf(1031)},  # a vector loop with a remainder
        }

    return tree


@pytest.fixture
def stream(draw):
    """A function from (steps, dtype) to gradients over eight orders of magnitude, with steps that are all zero."""

    def gradients(steps: int, dtype: Any = jnp.float32) -> list[Any]:
        scales = [0.0 if t % 11 == 3 else 10.0 ** (t % 9 - 6) for t in range(steps)]
        return [draw(t, dtype, scale) for t, scale in enumerate(scales)]

    return gradients
