"""The interpreted kernel against XLA's own code: equal moments, in leaves of all shapes and in their shards."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from adamx.core.step import Pass, Weights, take_step
from adamx.kernels.execute import by_kernel
from adamx.kernels.pallas.call import pallas_kernel
from tests.backends import differing, ulps
from tests.tiles import CASES, INT8_MOMENTS, STORAGES, WRAPPERS

SHAPES = {
    "vector": (16384,),
    "two tiles": (33 * 1024,),
    "matrix": (80, 384),
    "three": (3, 48, 256),
    "four": (2, 3, 40, 128),
    "odd": (37, 1024),
    "one block a row": (300, 128),
    "shard": (16, 1024),
    "odd shard": (5, 128 * 136),
}
RATE = 0.125
BAR = {"float32": 4, "bfloat16": 2}
"""Units in the last place of a parameter or an update: five operations lead to one; XLA rounds it to bfloat16."""


def tree(seed, dtype, shapes):
    """Numbers of 8 digits, whose squares are exact in float32."""
    random = np.random.default_rng(seed)
    return {k: jnp.asarray(random.standard_normal(shape), "bfloat16").astype(dtype) for k, shape in shapes.items()}


def interpreted(tx, platform):
    """`adamx.step` by the kernel of a platform, as plain operations."""
    kernel = functools.partial(by_kernel, pallas_kernel(platform, interpret=True))

    def step(params, state, gradients, offsets=None):
        extra = {} if offsets is None else {"dither_offset": offsets}
        weights, state = take_step(tx, gradients, state, Weights(params), Pass(kernel, extra))
        return weights.params, state

    return jax.jit(step)


def check(tx, platform, dtype, shapes, offsets=None):
    """Two steps of the kernel from where XLA's are; with β = 1/2 averages round once in any order of operations."""
    step, update = interpreted(tx, platform), jax.jit(tx.update)
    params = tree(0, dtype, shapes)
    state, extra = tx.init(params), {} if offsets is None else {"dither_offset": offsets}
    for t in (1, 2):
        gradients = tree(t, dtype, shapes)
        got, after = step(params, state, gradients, offsets)
        updates, state = update(gradients, state, params, **extra)
        moments = [getattr(x, "inner", x)[0] for x in (after, state)]
        assert differing(moments[0], moments[1]) == []
        before, params = params, jax.tree.map(lambda p, u: (p + u).astype(p.dtype), params, updates)
        for name, p in got.items():
            assert ulps(p, params[name], jnp.maximum(jnp.abs(before[name]), RATE)) <= BAR[dtype], name


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize(("storage", "wrapper"), CASES)
def test_codes_and_random_bits_are_those_of_xla(storage, wrapper, platform):
    wrap, dtype = WRAPPERS[wrapper]
    tx = wrap(adamx.adamw(RATE, 0.5, 0.5, weight_decay=0.5, **STORAGES[storage]))
    check(tx, platform, dtype, {"matrix": (80, 256), "small": (2, 128)})


@pytest.mark.slow
@pytest.mark.parametrize(("platform", "offset"), [("cuda", False), ("tpu", True)])
def test_leaves_of_any_rank_and_their_shards(platform, offset):
    places = {name: tuple(range(256, 256 + len(shape))) for name, shape in SHAPES.items()} if offset else None
    check(adamx.adam(RATE, 0.5, 0.5, **INT8_MOMENTS), platform, "float32", SHAPES, places)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(64, 1024), (1 << 16,), (512, 128)])
def test_shards_are_stepped_as_the_whole_leaf(shape):
    """Parts of the first axis, each in other tiles than the whole: 16 rows, 16,384 elements, 128 rows."""
    tx, parts = adamx.adam(RATE, 0.5, 0.5, **INT8_MOMENTS), 4
    step, params = interpreted(tx, "tpu"), tree(0, "float32", {"leaf": shape})
    state = jax.jit(tx.update)(tree(1, "float32", {"leaf": shape}), tx.init(params))[1]
    start = params, state, tree(2, "float32", {"leaf": shape})
    splits = jax.tree.map(lambda x: np.split(np.asarray(x), parts) if x.ndim else [x] * parts, start)
    shards = jax.tree.transpose(jax.tree.structure(start), jax.tree.structure([0] * parts), splits)

    def at(size):
        offsets = [{"leaf": (i * size, *[0] * (len(shape) - 1))} for i in range(parts)]
        stepped = [step(*shard, jax.tree.map(jnp.uint32, at)) for shard, at in zip(shards, offsets, strict=True)]
        return jax.tree.map(lambda *x: jnp.concatenate(x) if x[0].ndim else x[0], *stepped)

    expected, got = step(*start), at(shape[0] // parts)
    assert differing(got[1], expected[1]) == []
    assert ulps(got[0]["leaf"], expected[0]["leaf"], jnp.maximum(jnp.abs(params["leaf"]), RATE)) <= BAR["float32"]
    assert differing(at(0)[1], expected[1]) != []  # each shard dithered as the first


@pytest.mark.slow
def test_hyperparameters_may_be_traced():
    def step(rate, params, state):
        return interpreted(adamx.adam(rate, b1=4 * rate, b2=0.5, **INT8_MOMENTS), "tpu")(params, state, params)

    params = tree(0, "float32", {"matrix": (128, 128)})
    state = adamx.adam(0.1, **INT8_MOMENTS).init(params)
    got = jax.jit(step)(RATE, params, state)[0]
    x = params["matrix"]
    np.testing.assert_allclose(got["matrix"], x - RATE * x / (jnp.abs(x) + 1e-8), atol=1e-7)
