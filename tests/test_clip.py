import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from tests.backends import differing

TREE = {"w": jnp.asarray(np.random.default_rng(0).standard_normal((40, 30)), jnp.float32), "b": jnp.arange(7.0)}


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_updates_are_those_of_optax_to_the_bit(limit):
    ours, theirs = adamx.clip_by_global_norm(limit), optax.clip_by_global_norm(limit)
    for update in (lambda tx: jax.jit(tx.update), lambda tx: tx.update):
        got, expected = (update(tx)(TREE, tx.init(TREE))[0] for tx in (ours, theirs))
        assert differing(got, expected) == []


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_norm_of_half_precision_is_taken_in_float32(dtype):
    g = {"w": jnp.full((300, 300), 3.0, dtype), "b": jnp.full(300, 1e-3, dtype)}
    clipped, _ = adamx.clip_by_global_norm(9.0).update(g, optax.EmptyState())
    np.testing.assert_allclose(clipped["w"].astype("float32"), 0.03, rtol=2.0**-8)
    assert clipped["w"].dtype == dtype


def test_a_norm_whose_squares_overflow():
    g = jnp.full((10, 10), 1e30)
    np.testing.assert_allclose(adamx.clip_by_global_norm(1.0).update(g, optax.EmptyState())[0], 0.1, rtol=1e-6)


WAYS = {"step": adamx.step, "update": lambda tx, *args: tx.update(*args)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [0.0, 1e-25, 1.0])
@pytest.mark.parametrize("limit", [0.0, 0.5, 10.0])
def test_the_derivative_is_finite_for_gradients_of_any_size(way, size, limit):
    tx = adamx.chain(adamx.clip_by_global_norm(limit), adamx.adam(0.1))
    g = jnp.full(4, size)

    def moved(g):
        return WAYS[way](tx, g, tx.init(g), g)[0].sum()

    assert np.isfinite(moved(g))
    assert np.isfinite(jax.grad(moved)(g)).all()


def test_errors():
    with pytest.raises(ValueError, match="max_norm must be a finite number of at least 0, got -1"):
        adamx.clip_by_global_norm(-1.0)
    with pytest.raises(TypeError, match="gradient at a must be an array of real"):
        adamx.clip_by_global_norm(1.0).update({"a": jnp.arange(3)}, optax.EmptyState())
    with pytest.raises(TypeError, match="EmptyState"):
        adamx.clip_by_global_norm(1.0).update(TREE, adamx.adam(1.0).init(TREE))
