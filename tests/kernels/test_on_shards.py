"""The fused step of a sharded transformation, on one device; on eight in tests/zero.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from adamx.kernels import on_shards

MESH = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
CODEC = adamx.storage.Int8(min_size=0)


def tree(seed):
    random = np.random.default_rng(seed)
    return {"w": jnp.asarray(random.standard_normal((16, 128)), jnp.float32), "b": jnp.ones(128) * seed}


def two_steps(tx):
    step = jax.jit(lambda params, state, g: adamx.step(tx, g, state, params))
    first = step(tree(0), tx.init(tree(0)), tree(1))
    return step(*first, tree(2))


@pytest.mark.parametrize("wrap", [lambda tx: tx, adamx.with_stochastic_rounding], ids=["alone", "wrapped"])
def test_equals_the_fused_step(wrap):
    tx = wrap(adamx.fused_adamw(1e-3, weight_decay=0.1, mu_dtype="bfloat16", nu_dtype=CODEC))
    for a, b in zip(*map(jax.tree.leaves, (two_steps(adamx.shard_state(tx, MESH)), two_steps(tx))), strict=True):
        assert (a == b).all()


def test_the_mask_sees_whole_parameters():
    seen = []

    def mask(params):
        seen.append(jax.tree.map(jnp.shape, params))
        return {"w": True, "b": False}

    tx = adamx.shard_state(adamx.fused_adamw(1e-3, weight_decay=0.1, mask=mask), MESH)
    params, state = tree(0), tx.init(tree(0))
    seen.clear()
    jax.make_jaxpr(lambda params, state: adamx.step(tx, params, state, params))(params, state)
    assert seen == [{"w": (16, 128), "b": (128,)}]


def test_only_fused_steps_go_to_the_shards():
    assert on_shards._elementwise(adamx.adam(1e-3), {}) is None
    assert on_shards._elementwise(adamx.fused_adam(1e-3, backend="xla"), {}) is None
    assert on_shards._elementwise(adamx.with_master_weights(adamx.fused_adam(1e-3)), {}) is not None
