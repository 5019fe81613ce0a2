"""Where each array of a state goes."""

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

import adamx
from adamx.sharding.plan import abstract, make_plan, map_state

MESH = AbstractMesh((4,), ("data",))
PARAMS = {"w": jax.ShapeDtypeStruct((3, 256), "float32"), "b": jax.ShapeDtypeStruct((8,), "float32"), "none": None}


def plan(tx, params=PARAMS, own=None, mesh=MESH):
    return make_plan(tx, params, mesh, ("data",), jax.tree.map(lambda _: P(), params) if own is None else own)


def test_moments_go_with_their_parameters():
    where = plan(adamx.adam(1e-3))
    assert where.params == {"w": P(), "b": P(), "none": None}
    assert where.shards == {"w": P(None, "data"), "b": P("data"), "none": None}
    assert where.state[0].mu == where.state[0].nu == where.shards
    assert where.state[0].count == P()


def test_codes_and_their_numbers_go_together():
    codec = adamx.storage.Int8(block_size=64, min_size=0)
    where = plan(adamx.adam(1e-3, mu_dtype=codec, nu_dtype=codec))
    assert where.state[0].mu["w"] == adamx.storage.Quantized(*[P(None, "data")] * 2)
    assert where.state[0].mu["b"] == P("data")  # shorter than a block: float32
    assert where.state[0].count == P()


@pytest.mark.parametrize(("block", "spec"), [(64, P(None, "data")), (32, P(None, "data")), (128, P())])
def test_blocks_are_not_cut(block, spec):
    codec = adamx.storage.Int8(block_size=block, min_size=0)
    assert plan(adamx.adam(1e-3, nu_dtype=codec)).shards["w"] == spec  # 64 columns on each of 4 devices


def test_blocks_of_both_moments_count():
    small, large = (adamx.storage.Int8(block_size=size, min_size=0) for size in (16, 64))
    params = {"w": jax.ShapeDtypeStruct((3, 256), "float32")}
    assert plan(adamx.adam(1e-3, mu_dtype=small, nu_dtype=large), params).shards["w"] == P(None, "data")
    larger = adamx.storage.Int8(block_size=128, min_size=0)  # 128 do not divide 64
    assert plan(adamx.adam(1e-3, mu_dtype=small, nu_dtype=larger), params).shards["w"] == P()


def test_blocks_that_the_parameter_cuts_raise():
    codec = adamx.storage.Int8(block_size=128, min_size=0)
    mesh = AbstractMesh((2, 4), ("data", "model"))
    with pytest.raises(
        ValueError, match=r"moments of w are quantized in blocks of 128 .* axis of 256 into 4 parts: take a"
    ):
        plan(adamx.adam(1e-3, nu_dtype=codec), PARAMS, {"w": P(None, "model"), "b": P(), "none": None}, mesh)


def test_what_is_not_of_the_shape_of_a_parameter_stays_whole():
    factored = optax.scale_by_factored_rms(min_dim_size_to_factor=2)
    where = plan(factored, {"w": jax.ShapeDtypeStruct((8, 16), "float32")})
    assert {where.state.v_row["w"], where.state.v_col["w"], where.state.v["w"]} == {P()}


@pytest.mark.parametrize(
    "tx",
    [
        adamx.with_master_weights(adamx.adam(1e-3)),
        adamx.skip_nonfinite(adamx.adam(1e-3)),
        optax.masked(adamx.adam(1e-3), {"w": True, "b": False, "none": False}),
        optax.MultiSteps(adamx.adam(1e-3), 2).gradient_transformation(),
        optax.inject_hyperparams(adamx.adam)(1e-3),
        optax.partition({"a": adamx.adam(1e-3), "f": optax.set_to_zero()}, {"w": "a", "b": "f", "none": "f"}),
        optax.chain(optax.ema(0.9), optax.lion(1e-3)),
    ],
)
def test_every_array_of_a_parameter_is_split(tx):
    where, state = plan(tx).state, jax.eval_shape(tx.init, PARAMS)
    specs = [(x.shape, spec) for x, spec in zip(*map(jax.tree.leaves, (state, where)), strict=True)]
    assert {spec for shape, spec in specs if shape == (3, 256)} == {P(None, "data")}
    assert {spec for shape, spec in specs if shape == ()} <= {P()}


def test_map_state_numbers_the_leaves():
    tx = adamx.adam(1e-3)
    state, treedef = tx.init({"a": jnp.ones(2), "b": jnp.ones(3)}), jax.tree.structure({"a": 0, "b": 0})
    seen = map_state(tx, lambda stored, k: (stored.shape, k), state, treedef, lambda x: "other")
    assert seen[0].mu == {"a": ((2,), 0), "b": ((3,), 1)}
    assert seen[0].count == "other"


def test_abstract_keeps_shapes_and_dtypes():
    assert abstract({"w": jnp.ones((2, 3), jnp.bfloat16), "c": 1.0, "n": None}) == {
        "w": jax.ShapeDtypeStruct((2, 3), jnp.bfloat16),
        "c": 1.0,
        "n": None,
    }
