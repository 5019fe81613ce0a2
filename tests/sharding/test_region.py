"""Functions that run with Auto axes on both kinds of meshes; more devices are in tests/zero.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from adamx.sharding.region import automatic, region, shardings


def mesh(kind):
    return jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",), axis_types=(kind,))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("jit", [True, False])
def test_region(kind, jit):
    seen = []

    def inside(x, options):
        seen.append((jax.typeof(x).sharding.spec, options["name"]))
        return {"y": x * options["factor"]}

    where = mesh(kind)
    x = jax.device_put(jnp.ones((2, 4)), NamedSharding(where, P("data")))
    options = {"factor": jnp.float32(3), "name": "text"}

    def call(x):
        return region(inside, where, {"y": P("data")})(x, options)

    y = (jax.jit(call) if jit else call)(x)["y"]
    assert (y == 3).all()
    assert all("data" not in spec and name == "text" for spec, name in seen)
    assert y.sharding.is_equivalent_to(NamedSharding(where, P("data")), y.ndim)
    if kind == AxisType.Explicit and jit:  # outside jit, jax 0.6 writes P() where an axis has one device
        assert jax.typeof(y).sharding.spec[0] == "data"


def test_shardings():
    where = mesh(AxisType.Explicit)
    assert shardings(where, {"a": P("data"), "b": None}) == {"a": NamedSharding(where, P("data")), "b": None}
    assert automatic(where).axis_types == (AxisType.Auto,)
    assert automatic(where).shape == where.shape
