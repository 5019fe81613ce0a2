"""Sums over shards on one device; on eight, every transformation, in the programs `meshes.py` and `manual.py`."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import adamx
from adamx import shards

QUICK = {
    "meshes.py": [
        "explicit/fused int8",
        "shapes/master weights, int8",
        "shapes/mars",
        "cut/int8",
    ],
    "manual.py": [
        "manual/probe",
        "manual/averaged master weights",
        "forgotten/fused",
        "members/mars",
        "faulty/guarded int8",
        "scales/fused int8",
    ],
}
ALL = {
    "meshes.py": {"explicit": 42, "shapes": 42, "cut": 8},
    "manual.py": {"manual": 42, "forgotten": 42, "members": 6, "faulty": 4, "scales": 8},
}
"""How many checks there are of each kind."""


def run(program, *asked):
    """Starts a program; the lines that it prints."""
    command = [sys.executable, "-W", "error", Path(__file__).with_name(program), *asked]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-500:] + result.stderr[-3500:]
    return result.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("program", QUICK)
def test_eight_devices_for_some_of_every_kind(program):
    assert run(program, *QUICK[program]) == [f"{one} ok" for one in QUICK[program]]


@pytest.mark.soak
@pytest.mark.parametrize(("program", "kind"), [(program, kind) for program, kinds in ALL.items() for kind in kinds])
def test_eight_devices(program, kind):
    assert len(run(program, kind)) == ALL[program][kind]


def inside(f, check):
    """Runs a function of a sharded and of a whole array on a mesh of one device."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    specs = {"mesh": mesh, "in_specs": (P("data"), P()), "out_specs": P("data")}
    if hasattr(jax, "shard_map"):
        mapped = jax.shard_map(f, check_vma=check, **specs)
    else:
        from jax.experimental.shard_map import shard_map  # noqa: PLC0415 (jax 0.6.0)

        mapped = shard_map(f, check_rep=check, **specs)
    return jax.jit(mapped)(jnp.arange(4.0), jnp.ones(2))


@pytest.mark.parametrize("check", [True, False])
def test_axes_of_a_leaf(check):
    seen = []

    def look(x, whole):
        own, split = shards.varying(whole), shards.varying(x)
        seen.append([shards.axes_of(*given) for given in ((own, x), (own, whole), (own, whole, x), (split, x))])
        seen.append([shards.types_tell(), shards.manual_axes()])
        return x

    inside(look, check)
    told = [("data",), (), ("data",), ()]
    assert seen == [told if check else [("data",)] * 4, [check, ("data",)]]


def test_outside_there_are_none():
    x = jnp.ones(3)
    assert (shards.varying(x), shards.manual_axes(), shards.types_tell()) == (frozenset(), (), True)
    assert jax.jit(lambda x: shards.axes_of(shards.varying(x), x) or x)(x).shape == (3,)


def test_members_of_an_unnamed_pmap_share_nothing():
    seen = []
    jax.pmap(lambda x: seen.append(shards.manual_axes()) or x)(jnp.ones((1, 2)))
    assert seen[0] == ()


@pytest.mark.parametrize("axes", [(), ("data",)])
def test_sums(axes):
    def sums(x, _):
        mean, share = shards.mean(x, axes), shards.share(x > 1, axes, jnp.float32)
        return (
            jnp.stack([shards.total(x.sum(), axes), shards.largest(x.max(), axes), mean, share])
            * x.size
            / shards.size(x, axes)
        )

    np.testing.assert_array_equal(inside(sums, False), [6, 3, 1.5, 0.5])


def test_a_norm_needs_types():
    tx = adamx.mars(1e-3)

    def step(x, _):
        return tx.update(x, tx.init(x), x)[0]

    inside(step, True)
    with pytest.raises(ValueError, match="do not tell whether a leaf is split over devices: leave check_vma=True"):
        inside(step, False)
    tx = adamx.mars(1e-3, max_norm=None)
    inside(step, False)
