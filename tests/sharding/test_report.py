"""What `state_sharding` says, for devices that one does not have."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

import adamx

PAGE = Path(__file__).parents[2] / "docs" / "sharding.md"
BIG = {"w": jax.ShapeDtypeStruct((4096, 250_000), "float32"), "odd": jax.ShapeDtypeStruct((3,), "float32")}


def test_a_thousand_million_parameters_on_4096_devices():
    where = adamx.sharding.state_sharding(adamx.adam(1e-3), BIG, AbstractMesh((4096,), ("data",)))
    assert where.total == 8 * (4096 * 250_000 + 3) + 4
    assert where.per_device == 8 * 250_000 + 24 + 4
    assert where.whole == {"odd": 24}
    assert where.rest == 4
    assert where.leaves["w"] == (P("data", None), 8 * 4096 * 250_000, 8 * 250_000, False)
    assert where.shardings[0].mu["w"].spec == P("data", None)


def test_bytes_of_codes():
    codec = adamx.storage.Int8(min_size=4096)
    tx = adamx.with_master_weights(adamx.adam(1e-3, mu_dtype=codec, nu_dtype=codec))
    params = {"w": jax.ShapeDtypeStruct((64, 1024), jnp.bfloat16)}
    where = adamx.sharding.state_sharding(tx, params, AbstractMesh((8,), ("data",)))
    assert where.leaves["w"].per_device == 64 * 1024 * (2 + 2 + 16 / 128) / 8
    assert where.total == adamx.state_bytes(jax.eval_shape(tx.init, params)).total


def test_parameters_that_are_split_already():
    mesh = AbstractMesh((2, 4), ("data", "model"))
    where = adamx.sharding.state_sharding(adamx.adam(1e-3), {"w": BIG["w"]}, mesh, specs=P(None, "model"))
    assert where.leaves["w"].spec == P("data", "model")
    assert where.per_device == where.total // 8 + 4
    several = adamx.sharding.state_sharding(adamx.adam(1e-3), {"w": BIG["w"]}, mesh, axis=("data", "model"))
    assert several.leaves["w"].spec == P(("data", "model"), None)


def test_sharded_transformations_say_the_same():
    mesh = jax.sharding.Mesh(jax.devices()[:1], ("data",))
    tx, params = adamx.adam(1e-3), {"w": jnp.ones((4, 4))}
    assert adamx.sharding.state_sharding(adamx.shard_state(tx, mesh), params, mesh) == adamx.sharding.state_sharding(
        tx, params, mesh
    )


def test_the_table():
    table = str(adamx.sharding.state_sharding(adamx.adam(1e-3), BIG, AbstractMesh((4096,), ("data",)))).splitlines()
    assert table[0].split() == ["leaf", "bytes", "on", "each", "device", "spec"]
    assert table[1].split() == ["odd", "24", "24", "(),", "whole"]
    assert table[-1].split() == ["total", "8,192,000,028", "2,000,028"]


CODED = {"mu_dtype": adamx.storage.Int8(min_size=4096), "nu_dtype": adamx.storage.Int8(min_size=4096)}
TABLE = {
    "float32, float32 moments": (4, adamx.adam(1e-3)),
    "float32, Int8 moments": (4, adamx.adam(1e-3, **CODED)),
    "bfloat16 with master weights, float32 moments": (2, adamx.with_master_weights(adamx.adam(1e-3))),
    "bfloat16 with master weights, Int8 moments": (2, adamx.with_master_weights(adamx.adam(1e-3, **CODED))),
}


@pytest.mark.skipif(not PAGE.exists(), reason="documentation is not in a source distribution")
@pytest.mark.parametrize("name", TABLE)
def test_the_page_on_paper_says_what_the_plan_says(name):
    of_parameter, tx = TABLE[name]
    shape = (4096, 128 * 1907)  # close to 10^9, in whole blocks
    params = {"w": jax.ShapeDtypeStruct(shape, jnp.float32 if of_parameter == 4 else jnp.bfloat16)}
    (row,) = re.findall(rf"^\| {name} \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    for n, said in zip((1, 8, 64, 512, 4096), row.split(" | "), strict=True):
        where = adamx.sharding.state_sharding(tx, params, AbstractMesh((n,), ("data",)))
        each = of_parameter + (where.per_device - where.rest) / (shape[0] * shape[1])
        assert f"{each:.4g}" == said, f"{n} devices"
