"""What reaches the kernel: which leaves of a tree, which numbers of a step."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.storage import Int8
from tests.backends import composed, differing, jitted, needs_kernel, ulps

pytestmark = needs_kernel

MIXED = {
    "float32": jnp.ones((2, 101), jnp.float32),
    "bfloat16": jnp.ones((2, 102), jnp.bfloat16),
    "float16": jnp.ones((2, 103), jnp.float16),
    "complex": jnp.ones((2, 104), jnp.complex64),
    "empty": jnp.ones((0, 105), jnp.float32),
    "nine axes": jnp.ones((1,) * 8 + (106,), jnp.float32),
    "scalar": jnp.float32(1),
}


def taken(tx, params):
    """The last axes of the leaves with two axes that the kernel takes, and the number of its calls."""
    text = jitted(tx).lower(params, tx.init(params), params).as_text()
    calls = [line for line in text.splitlines() if "@adamx_step" in line]
    gradients = [re.findall(r"tensor<2x(\d+)x(?:f32|bf16|f16)>", line.partition(" -> ")[2]) for line in calls]
    sizes = {x.shape[-1] for x in jax.tree.leaves(params) if x.ndim == 2}
    return sorted({int(size) for found in gradients for size in found} & sizes), len(calls)


@pytest.mark.slow
def test_leaves_of_one_tree_go_both_ways():
    tx = adamx.adam(0.125)
    assert taken(tx, MIXED) == ([101, 102, 103], 3)
    got, state = jitted(tx)(MIXED, tx.init(MIXED), MIXED)
    for name, x in got.items():
        assert x.dtype == MIXED[name].dtype
        np.testing.assert_allclose(x.astype(jnp.complex64), 0.875, rtol=0.01, err_msg=name)
    assert int(state[0].count) == 1


@pytest.mark.slow
def test_codecs_that_the_kernel_does_not_know_are_left_to_xla():
    params = {"coded": jnp.ones((2, 128)), "small": jnp.ones((2, 8))}
    assert taken(adamx.adam(0.1, nu_dtype=Int8(8, 16)), params)[0] == [8]
    assert taken(adamx.adam(0.1, nu_dtype=Int8(32, 16)), params)[0] == [8, 128]
    assert taken(adamx.adam(0.1, mu_dtype="float16", nu_dtype="float16"), params) == ([], 0)


@pytest.mark.slow
def test_leaves_of_one_form_share_a_call():
    assert taken(adamx.adam(0.1), [jnp.ones((2, 3 + i)) for i in range(32)]) == (list(range(3, 35)), 1)
    assert taken(adamx.adam(0.1), [jnp.ones((2, 3 + i)) for i in range(33)])[1] == 2


def both(tx, params, count=4):
    """(got, expected, params) of each step, all from what XLA's step before left; squares of gradients are exact."""
    state, steps = tx.init(params), (jitted(tx), composed(tx))
    for t in range(count):
        random = np.random.default_rng(t)
        normal = [jnp.asarray(random.standard_normal(x.shape), jnp.bfloat16) for x in jax.tree.leaves(params)]
        gradients = jax.tree.unflatten(jax.tree.structure(params), [x.astype(jnp.float32) for x in normal])
        got, expected = (step(params, state, gradients) for step in steps)
        yield got, expected, params
        params, state = expected


PARAMS = {"decays": jnp.linspace(1, 2, 77), "stays": {"a": jnp.linspace(1, 2, 78), "b": jnp.linspace(1, 2, 79)}}


@pytest.mark.parametrize(
    "arguments",
    [
        {"learning_rate": optax.piecewise_constant_schedule(0.5, {1: 0.5, 2: 0.25})},
        {"learning_rate": 0.1, "weight_decay": optax.piecewise_constant_schedule(0.5, {1: 0.5, 2: 0.25})},
        {"learning_rate": 0.1, "weight_decay": 0.5, "mask": {"decays": True, "stays": False}},
        {"learning_rate": 0.1, "weight_decay": 0.5, "mask": lambda p: jax.tree.map(lambda x: x.size == 78, p)},
    ],
    ids=["schedule of the rate", "schedule of the decay", "mask", "function for a mask"],
)
def test_schedules_and_masks_reach_the_kernel(arguments):
    for got, expected, before in both(adamx.adamw(b1=0.5, b2=0.5, **arguments), PARAMS):
        assert differing(got[1], expected[1]) == []
        for p, q, old in zip(*map(jax.tree.leaves, (got[0], expected[0], before)), strict=True):
            assert ulps(p, q, old) <= 2


def test_a_mask_of_the_kernel_spares_what_it_names():
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    tx = adamx.adamw(0.5, weight_decay=0.5, mask={"decays": True, "stays": {"a": False, "b": True}})
    got, _ = jitted(tx)(PARAMS, tx.init(PARAMS), zero)
    expected = {
        "decays": 0.75 * PARAMS["decays"],
        "stays": {"a": PARAMS["stays"]["a"], "b": 0.75 * PARAMS["stays"]["b"]},
    }
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), got, expected)
