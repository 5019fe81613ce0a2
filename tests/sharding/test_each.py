"""The step of a sharded transformation, on one device; on eight in tests/zero.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import adamx
from adamx.core.leaf import Leaf
from adamx.core.work import Work
from adamx.sharding.each import on_each

MESH = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
CODEC = adamx.storage.Int8(min_size=0)


def tree(seed):
    random = np.random.default_rng(seed)
    return {"w": jnp.asarray(random.standard_normal((16, 128)), jnp.float32), "b": jnp.ones(128) * seed}


def two_steps(tx):
    step = jax.jit(lambda params, state, g: adamx.step(tx, g, state, params))
    first = step(tree(0), tx.init(tree(0)), tree(1))
    return step(*first, tree(2))


WRAPS = {
    "alone": lambda tx: tx,
    "wrapped": adamx.with_stochastic_rounding,
    "clipped": lambda tx: adamx.chain(adamx.clip_by_global_norm(1.0), tx),
    "guarded": adamx.skip_nonfinite,
    "guarded from spikes": adamx.skip_spikes,
}


@pytest.mark.slow
@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_equals_the_step_of_the_whole(wrap):
    tx = wrap(adamx.adamw(1e-3, weight_decay=0.1, mu_dtype="bfloat16", nu_dtype=CODEC))
    for a, b in zip(*map(jax.tree.leaves, (two_steps(adamx.shard_state(tx, MESH)), two_steps(tx))), strict=True):
        assert (a == b).all()


def test_the_mask_sees_whole_parameters():
    seen = []

    def mask(params):
        seen.append(jax.tree.map(jnp.shape, params))
        return {"w": True, "b": False}

    tx = adamx.shard_state(adamx.adamw(1e-3, weight_decay=0.1, mask=mask), MESH)
    params, state = tree(0), tx.init(tree(0))
    seen.clear()
    jax.make_jaxpr(lambda params, state: adamx.step(tx, params, state, params))(params, state)
    assert seen == [{"w": (16, 128), "b": (128,)}]


def test_a_shard_is_told_where_it_begins():
    told = []

    def execute(work):
        told.append(work.offsets)
        return tuple(leaf._replace(gradient=None) for leaf in work.leaves)

    leaf = Leaf(jnp.ones((4, 6)), jnp.ones((4, 6)), None, jnp.ones((4, 6)), jnp.ones((4, 6)))
    work = Work(None, (leaf,), (), None, None, ((0, 0),), (0,))
    (after,) = on_each(execute, MESH, {"w": P("data")})(work)
    assert [len(place) for place in told[0]] == [2]
    np.testing.assert_array_equal(after.param, leaf.param)
