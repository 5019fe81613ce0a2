"""A step of the whole tree on halves of leaves, one after the other, beside the step of all; processes: test_shards."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.core.step import Pass, Weights, take_step
from adamx.core.work import by_xla
from adamx.streaming.pieces import Inputs
from adamx.streaming.whole import MIXED, whole

PARAMS = {"a": jnp.arange(32.0).reshape(8, 4) / 8, "b": jnp.ones(8)}
GRADIENTS = {"a": jnp.arange(-16.0, 16).reshape(8, 4) / 8, "b": jnp.arange(8.0)}


def half(k, tree):
    """The k-th half of what has rows."""
    return jax.tree.map(lambda x: x[4 * k : 4 * k + 4] if x.ndim else x, tree)


def halved(tx, k):
    def take(gradients, params, state, extra, execute, branch):
        weights, after = take_step(tx, gradients, state, Weights(params), Pass(execute, extra, branch=branch))
        return weights.params, after

    trees = GRADIENTS, PARAMS, tx.init(PARAMS), {}
    both = (jax.eval_shape(lambda t=t: t) for t in (trees, half(k, trees)))
    offsets = None if k is None else ((4 * k, 0), (4 * k,))
    return whole(take, Inputs(*both, offsets), by_xla, False), trees


def over_mean(gradients, _):
    return jax.tree.map(lambda g: g / jnp.mean(g * g), gradients)


CLIP = adamx.clip_by_global_norm(1.0)
APART = {  # and the inputs that sums follow from
    "adam": (adamx.adam(0.1), []),
    "clipped averages": (adamx.skip_nonfinite(adamx.with_ema(adamx.chain(CLIP, adamx.adam(0.1)), 0.5)), [0, 1]),
    "dithered sums": (adamx.chain(CLIP, adamx.accumulate(adamx.adam(0.1), 1, "bfloat16")), [0, 1]),
    "stochastic averages": (adamx.with_ema(adamx.adam(0.1, nu_dtype="bfloat16"), 0.5, dtype="bfloat16"), []),
    "means": (optax.chain(optax.stateless(over_mean), optax.adam(0.1)), [0, 1]),
}


@pytest.mark.parametrize("name", APART)
def test_halves_are_those_of_the_step_of_all(name):
    tx, needed = APART[name]
    expected = jax.jit(lambda g, s, p: adamx.step(tx, g, s, p, backend="xla"))(GRADIENTS, tx.init(PARAMS), PARAMS)
    for k in range(2):
        found, trees = halved(tx, k)
        assert found.needed == found.beside == needed
        flat = jax.tree.leaves(trees)
        numbers = found.numbers([flat[i] for i in needed])
        gradients, params, state, extra = half(k, trees)
        got = found.run(params, state, gradients, extra, numbers)
        assert jax.tree.structure(got) == jax.tree.structure(expected)
        for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(half(k, expected)), strict=True):
            np.testing.assert_allclose(np.float64(x), np.float64(y), rtol=1e-6, atol=1e-7)


def turned(gradients, _):
    return jax.tree.map(lambda g: g[::-1], gradients)


def by_rows(gradients, _):
    return jax.tree.map(lambda g: g / jnp.cumsum(g, axis=-1), gradients)


MIXES = {
    "a norm of sums": (adamx.accumulate(adamx.chain(CLIP, adamx.adam(0.1)), 2), "reduce_sum"),
    "norms of leaves": (adamx.with_norms(adamx.adam(0.1)), "it measures the norms of leaves"),
    "norms of updates": (optax.chain(optax.sgd(0.1), optax.scale_by_trust_ratio()), ""),
    "norms of the state": (optax.chain(optax.trace(0.5), optax.clip_by_global_norm(1.0)), "it sums over its state"),
    "a way back": (optax.stateless(turned), "rev"),
    "a running sum": (optax.stateless(by_rows), "cumsum"),
    "noise": (optax.add_noise(0.1, 0.1, 0), ""),
}


@pytest.mark.parametrize("name", MIXES)
def test_what_mixes_elements_of_a_leaf_raises(name):
    tx, why = MIXES[name]
    with pytest.raises(ValueError, match="mixes elements of a leaf that is split over processes") as raised:
        halved(tx, 0)
    assert str(raised.value).startswith(f"{MIXED} ({why}")
