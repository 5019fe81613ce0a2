import dataclasses
from typing import Any, NamedTuple

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import adamx


class Layer(NamedTuple):
    kernel: Any
    bias: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Block:
    norm: Any
    layers: list[Layer]


PARAMS = {
    "encoder": Block(norm=jnp.ones(3), layers=[Layer(jnp.ones((3, 3)), jnp.ones(3)), Layer(jnp.ones((3, 3)), None)]),
    "embedding": jnp.ones((7, 3)),
}


class Network(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(2, 3, rngs=rngs)
        self.norm = nnx.LayerNorm(3, rngs=rngs)


def test_paths_are_read_the_same_in_every_container():
    mask = adamx.match("layers/0", "^embedding$")(PARAMS)
    assert jax.tree.structure(mask) == jax.tree.structure(PARAMS)
    assert mask["encoder"].layers == [Layer(True, True), Layer(False, None)]
    assert mask["embedding"] is True
    assert mask["encoder"].norm is False


@pytest.mark.slow
def test_flax_nnx_and_equinox():
    state = nnx.state(Network(nnx.Rngs(0)), nnx.Param)
    mask = adamx.match("^first/bias$", "scale")(state)
    answers = {"first": {"bias": True, "kernel": False}, "norm": {"bias": False, "scale": True}}
    assert jax.tree.leaves(mask) == [True, False, False, True]
    assert dict(mask["first"]) == answers["first"]  # booleans in the places of variables, for trees with and without
    assert dict(mask["norm"]) == answers["norm"]
    model = equinox.filter(equinox.nn.MLP(2, 2, 4, 1, key=jax.random.key(0)), equinox.is_array)
    assert jax.tree.leaves(adamx.not_matching("layers/0/bias")(model)) == [True, False, True, True]


def test_not_matching_is_the_opposite():
    yes, no = (f("bias$", "norm")(PARAMS) for f in (adamx.match, adamx.not_matching))
    assert jax.tree.leaves(yes) == [not x for x in jax.tree.leaves(no)]


@pytest.mark.parametrize("wrap", [optax.masked, lambda tx, mask: adamx.adamw(0.1, weight_decay=0.5, mask=mask)])
def test_masks_under_jit(wrap):
    tx = wrap(adamx.adam(0.1), adamx.not_matching("kernel$"))
    updates, _ = jax.jit(tx.update)(PARAMS, jax.jit(tx.init)(PARAMS), PARAMS)
    assert jax.tree.structure(updates) == jax.tree.structure(PARAMS)


@pytest.mark.slow
def test_decay_where_it_belongs():
    tx = adamx.adamw(0.1, weight_decay=0.5, mask=adamx.not_matching("bias$", "norm$"))
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = tx.update(zero, tx.init(PARAMS), PARAMS)
    encoder = updates["encoder"]
    decayed = [encoder.layers[0].kernel, encoder.layers[1].kernel, updates["embedding"]]
    assert all(u.any() for u in decayed)
    assert not encoder.norm.any()
    assert not encoder.layers[0].bias.any()


@pytest.mark.slow
def test_a_frozen_body_has_no_state():
    tx = optax.partition({True: adamx.adam(0.1), False: optax.set_to_zero()}, adamx.match("^embedding$"))
    state = tx.init(PARAMS)
    assert adamx.state_bytes(state).total == 2 * PARAMS["embedding"].nbytes + 4
    updates, _ = tx.update(PARAMS, state, PARAMS)
    assert not any(u.any() for u in jax.tree.leaves(updates["encoder"]))


def test_a_pattern_that_matches_nothing_names_what_comes_near():
    with pytest.raises(ValueError, match=r"match: no path matches 'embeding'. There are 5, among them: embedding, "):
        adamx.match("kernel", "embeding")(PARAMS)
    with pytest.raises(ValueError, match="not_matching: no path matches 'biass'"):
        adamx.adamw(0.1, mask=adamx.not_matching("biass")).init(PARAMS)
    with pytest.raises(ValueError, match="scale_by_path: no path matches 'head'"):
        adamx.scale_by_path({"head": 0.1}).update(PARAMS, optax.EmptyState())
    assert adamx.match("anything")({}) == {}


@pytest.mark.parametrize(
    "make", [adamx.match, adamx.not_matching, lambda *p: adamx.scale_by_path(dict.fromkeys(p, 1.0))]
)
def test_patterns_are_checked(make):
    with pytest.raises(ValueError, match="needs at least one regular expression"):
        make()
    with pytest.raises(TypeError, match="takes regular expressions, got 3 of type int"):
        make(3)
    with pytest.raises(ValueError, match=r"'\(' is not a regular expression"):
        make("(")


def test_factors():
    tx = adamx.scale_by_path({"layers/0/kernel": 0.0, "layers": 0.5})
    scaled, _ = tx.update(PARAMS, tx.init(PARAMS))
    first, second = scaled["encoder"].layers
    assert (float(first.kernel[0, 0]), float(first.bias[0]), float(second.kernel[0, 0])) == (0.0, 0.5, 0.5)
    assert scaled["embedding"] is PARAMS["embedding"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "complex64"])
def test_factors_are_applied_in_float32(dtype):
    x = jnp.asarray(np.random.default_rng(0).standard_normal(100), dtype)
    tx = adamx.scale_by_path({"x": 0.1})
    scaled, _ = tx.update({"x": x}, optax.EmptyState())
    wide = x.astype("complex64" if dtype == "complex64" else "float32")
    np.testing.assert_array_equal(scaled["x"], (wide * np.float32(0.1)).astype(dtype))


def test_factors_may_be_traced_and_swept():
    def size(factor):
        tx = adamx.scale_by_path({"x": factor})
        return tx.update({"x": jnp.ones(())}, optax.EmptyState())[0]["x"]

    np.testing.assert_array_equal(jax.vmap(size)(jnp.array([0.5, 2.0])), [0.5, 2.0])


@pytest.mark.parametrize(("factor", "error"), [(-1.0, ValueError), (np.nan, ValueError), ("1", TypeError)])
def test_wrong_factors(factor, error):
    with pytest.raises(error, match="scale_by_path: the factor of 'x' must be"):
        adamx.scale_by_path({"x": factor})
