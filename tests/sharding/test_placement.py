"""Which axis of an array is split: on meshes that need no devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from adamx.sharding.placement import entries, is_explicit, mesh_axes, own_specs, parts, told, with_axes

MESH = AbstractMesh((4, 2), ("data", "model"))


@pytest.mark.parametrize(
    ("spec", "shape", "block", "expected"),
    [
        (P(), (8, 6), 1, P("data", None)),
        (P(), (6, 8), 1, P(None, "data")),  # the first axis that is divisible
        (P(), (6, 5), 1, P()),
        (P(), (), 1, P()),
        (P(), (0, 8), 1, P()),  # nothing to split
        (P("data"), (8, 8), 1, P("data")),  # has it already
        (P("model", None), (8, 8), 1, P("model", "data")),  # a free axis first
        (P("model", None), (8, 3), 1, P(("model", "data"), None)),
        (P("model", None), (4, 3), 1, P("model", None)),  # 4 rows over 8 devices
        (P(), (3, 64), 16, P(None, "data")),
        (P(), (3, 64), 32, P()),  # 16 columns each would cut blocks of 32
        (P(), (8, 64), 32, P("data", None)),  # blocks lie in the last axis only
        (P(None, "model"), (3, 128), 16, P(None, ("model", "data"))),
    ],
)
def test_with_axes(spec, shape, block, expected):
    assert with_axes(spec, shape, MESH, ("data",), block) == expected


def test_with_several_axes():
    assert with_axes(P(), (16,), MESH, ("data", "model")) == P(("data", "model"))
    assert with_axes(P("model"), (16, 4), MESH, ("data", "model")) == P("model", "data")


def test_parts_and_entries():
    assert parts(MESH, ("data", "model")) == 8
    assert parts(MESH, ()) == 1
    assert entries(P(("data", "model"), None), 3) == [("data", "model"), (), ()]


def test_axes_of_the_mesh():
    assert mesh_axes(MESH, "data") == ("data",)
    assert mesh_axes(MESH, ("data", "model")) == ("data", "model")
    with pytest.raises(ValueError, match="or several of them, got 'rows'"):
        mesh_axes(MESH, "rows")


def one_device(kind, name="data"):
    return jax.sharding.Mesh(np.array(jax.devices()[:1]), (name,), axis_types=(kind,))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_arrays_tell_where_they_are(kind):
    mesh = one_device(kind)
    x = jax.device_put(jnp.ones((4, 4)), NamedSharding(mesh, P(None, "data")))
    assert told(x, mesh) == P(None, "data")
    assert told(jnp.ones(3), mesh) is None
    assert told(1.0, mesh) is None
    assert told(jax.ShapeDtypeStruct((4,), "float32", sharding=NamedSharding(mesh, P("data"))), mesh) == P("data")
    inside = []
    jax.jit(lambda x: inside.append(told(x, mesh)))(x)
    assert inside == ([P(None, "data")] if is_explicit(mesh) else [None])
    with pytest.raises(ValueError, match=r"placed on the mesh \{'data': 1\}, not on \{'rows': 1\}"):
        told(x, one_device(kind, "rows"))


def test_specs_of_parameters():
    struct = jax.ShapeDtypeStruct((4, 4), "float32")
    params = {"a": {"w": struct, "b": None}, "c": struct}
    assert own_specs(params, MESH) == {"a": {"w": P(), "b": None}, "c": P()}
    assert own_specs(params, MESH, P("data")) == {"a": {"w": P("data"), "b": None}, "c": P("data")}
    given = {"a": P("model"), "c": NamedSharding(MESH, P("data"))}
    assert own_specs(params, MESH, given) == {"a": {"w": P("model"), "b": None}, "c": P("data")}


def test_specs_that_are_not_so_raise():
    placed = jax.ShapeDtypeStruct((4, 4), "float32", sharding=NamedSharding(MESH, P("model", None)))
    assert own_specs({"w": placed}, MESH, {"w": P("model")}) == {"w": P("model")}
    with pytest.raises(ValueError, match=r"parameter at w is placed as .*model.*, specs has .*data.* for it"):
        own_specs({"w": placed}, MESH, {"w": P("data")})
    with pytest.raises(ValueError, match="parameter at w is placed on the mesh"):
        own_specs({"w": placed}, AbstractMesh((8,), ("data",)))
