"""What several test files share: trees of every container, streams of gradients, x64, and what is run on demand."""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

collect_ignore_glob = ["golden/make_*.py"]  # programs, not tests, as are:
collect_ignore = ["mutations.py", "sharded.py", "zero.py", "layouts.py", "distributed.py", "backends.py", "family.py"]


REPEATS = re.compile(
    "|".join(
        [
            r"test_parity.py::test_jitted_float32\[\w+-constant",
            r"test_parity.py::test_jitted_float64\[(adam_|adamw-)",
            r"test_parity.py::test_jitted_float32_under_x64\[adam\]",
            r"test_parity.py::test_leaves_of_every_small_size",
            r"test_parity.py::test_inside_a_training_step\[(adam_nesterov|adam)-scan",
            r"test_parity.py::test_complex_to_a_few_ulp\[complex128",
            r"test_peers.py::test_jitted_float(32|64)\[(nadamw|adamaxw)",
            r"test_low_precision.py::test_modes\[(vmap|disable_jit|x64|injected)",
            r"test_low_precision.py::test_optax_wrappers\[bfloat16",
            r"test_low_precision.py::test_save_restore_continue_with_equal_bits\[(float8|bfloat16)",
            r"test_probe.py::test_no_bit_of_the_updates_changes\[(arguments0-1|arguments1|arguments2-1)",
            r"test_diagnose.py::test_finds_the_probe_wherever_it_stands\[(<lambda>[02]|with)",
            r"test_skip.py::test_\w+\[(optax.adam|adamw|int8)-update",
            r"test_skip.py::test_clean_leaves_move_as_in_a_run_without_faults\[(master|fused|optax)",
            r"kernels/test_parity.py::test_gradients_at_the_ends_of_the_range\[(float16|nesting int8-[-1])",
            r"kernels/test_parity.py::test_codes_and_random_bits_\w+\[(int8-float16|nearest|int8 m-|float16)",
            r"pallas/test_view.py::test_thresholds_are_those_of_the_whole_leaf\[shape[03]",
            r"pallas/test_tile.py::test_a_tile_steps_as_the_composed_stages_do\[int8 ",
            r"pallas/test_call.py::test_leaves_of_any_rank",
            r"test_master_weights.py::test_the_hidden_weights_are_\w+\[300-(optax.adamw|clipped|sgd)",
            r"test_master_weights.py::test_the_same_op_by_op\[(clipped|lamb)",
            r"test_types.py::test_types_never_move_in_variants\[(float8|bfloat16\])",
            r"test_family.py::test_half_precision_follows_float64\[(\w+w|adamw_atan2)\]",
        ]
    )
)
"""Combinations of what other tests show one by one: they run with the slow tests."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what repeats other tests as slow."""
    for item in items:
        if REPEATS.search(item.nodeid):
            item.add_marker(pytest.mark.slow)


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
            "encoder": [Layer(leaf(17, 5), leaf(5)), (leaf(), None)],
            "empty": leaf(0, 3),
            "wide": {"a": leaf(1031), "b": leaf(2, 3, 4)},
        }

    return tree


@pytest.fixture
def stream(draw):
    """A function from (steps, dtype) to gradients over eight orders of magnitude, with steps that are all zero."""

    def gradients(steps: int, dtype: Any = jnp.float32) -> list[Any]:
        scales = [0.0 if t % 11 == 3 else 10.0 ** (t % 9 - 6) for t in range(steps)]
        return [draw(t, dtype, scale) for t, scale in enumerate(scales)]

    return gradients
