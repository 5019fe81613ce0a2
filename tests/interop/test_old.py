"""States of adamx 0.1."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from adamx.interop import from_0_1

FOLDER = Path(__file__).parents[1] / "golden"
SPEC = importlib.util.spec_from_file_location("make_state", FOLDER / "make_state.py")
GOLDEN = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(GOLDEN)
RELEASES = sorted(FOLDER.glob("state_*.npz"))

PARAMS = {"w": jnp.ones((4, 64)), "b": jnp.ones(3)}
INT8 = adamx.storage.Int8(64, 0)
MADE = {
    "bfloat16": adamx.adam(1e-3, mu_dtype="bfloat16", nu_dtype="bfloat16"),
    "int8": adamx.adamw(1e-3, mu_dtype=INT8, nu_dtype=INT8),
    "amsgrad": adamx.amsgrad(1e-3, nu_dtype="bfloat16"),
    "ademamix": adamx.ademamix(1e-3, mu_dtype="bfloat16", nu_dtype="bfloat16"),
    "master weights": adamx.with_master_weights(adamx.adam(1e-3, nu_dtype="bfloat16")),
    "stochastic rounding": adamx.with_stochastic_rounding(adamx.adam(1e-3, nu_dtype="float16")),
    "plain": adamx.adam(1e-3),
}


def as_in_0_1(node):
    """A state in dicts and lists, with the second counter beside each count."""
    if isinstance(node, adamx.storage.Quantized):
        return {"codes": node.codes} | dict(zip(("scale", "top"), jnp.moveaxis(node.scales, -1, 0), strict=False))
    if hasattr(node, "_fields"):
        fields = {name: as_in_0_1(value) for name, value in node._asdict().items() if value is not None}
        return fields | ({"step": fields["count"].astype(jnp.uint32)} if {"count", "mu"} <= fields.keys() else {})
    if isinstance(node, tuple):
        return [as_in_0_1(child) for child in node]
    return {name: as_in_0_1(child) for name, child in node.items()} if isinstance(node, dict) else node


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_a_state_of_0_1_goes_on(name):
    tx = MADE[name]
    params = (
        PARAMS
        if name not in ("master weights", "stochastic rounding")
        else jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    )
    _, state = tx.update(params, tx.init(params), params)
    again = from_0_1(tx, as_in_0_1(state), params)
    assert jax.tree.structure(again) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, again, state)


def test_a_state_of_something_else_is_told():
    with pytest.raises(TypeError, match="missing 0/nu/b"):
        from_0_1(adamx.adam(1e-3), [{"count": jnp.int32(0), "mu": PARAMS}], PARAMS)
    with pytest.raises(TypeError, match="0/nu/w: expected uint8 codes"):
        from_0_1(MADE["int8"], as_in_0_1(adamx.adam(1e-3).init(PARAMS)), PARAMS)


# Steps are compiled by the XLA that runs, which may contract a sum otherwise: a unit in the last place of a moment, and
# 2 ulps of the parameter in each of the 10 steps. Every version from jax 0.6.0 to 0.10.2 gave the recorded bits on x86.
ULPS = 20


def read(release, name, kind, like):
    """What a release stored, by path, in the types of a tree: a path that the tree lacks is an integer."""
    prefix = f"{name}: {kind}: "
    found = {key.removeprefix(prefix): release[key] for key in release.files if key.startswith(prefix)}
    types = {"/".join(map(str, path)): x.dtype for path, x in named(like)}
    halves = {name for name, dtype in types.items() if dtype == jnp.bfloat16}
    halves |= {name for name, x in found.items() if name.endswith("/scale") and x.dtype == np.uint16}
    return {name: jnp.asarray(x.view(jnp.bfloat16) if name in halves else x) for name, x in found.items()}


def named(tree):
    return [
        ((jax.tree_util.keystr(path, simple=True, separator="/"),), x)
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("file", RELEASES, ids=lambda file: file.stem)
def test_blocks_of_a_length_that_is_no_power_of_two_are_stored_anew(file):
    name, release = "int8 in blocks of 24", np.load(file)  # 0.1 took blocks of any length
    tx, dtype = GOLDEN.SETTINGS["int8"]
    params = in_order(release, name, "params", GOLDEN.draw(1000, dtype))
    saved = read(release, name, "state", jax.eval_shape(tx.init, params))
    with pytest.raises(
        TypeError, match=r"mu/layer/w: expected int8 codes with scales .*\(4, 4, 2\), got .*\(4, 5, 2\)"
    ):
        from_0_1(tx, saved, params)
    state = from_0_1(tx, saved, params, block_size=24)
    found, _ = GOLDEN.train(tx, params, state, GOLDEN.STEPS)
    expected = in_order(release, name, "after", params)
    # Codes lie 1.6 to 3 % apart and are rounded once more: ten steps of 1e-2 stay within a fifth of one.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=2e-3), found, expected)


def in_order(release, name, kind, like):
    found = read(release, name, kind, like)
    return jax.tree.structure(like).unflatten([found[path] for (path,), _ in named(like)])


@pytest.mark.slow
@pytest.mark.parametrize("name", GOLDEN.SETTINGS)
@pytest.mark.parametrize("file", RELEASES, ids=lambda file: file.stem)
def test_states_of_released_versions_go_on(file, name):
    release = np.load(file)
    tx, dtype = GOLDEN.SETTINGS[name]
    params = GOLDEN.draw(1000, dtype)
    params = in_order(release, name, "params", params)
    state, then = (from_0_1(tx, read(release, name, kind, tx.init(params)), params) for kind in ("state", "last"))
    found, last = GOLDEN.train(tx, params, state, GOLDEN.STEPS)
    expected = in_order(release, name, "after", params), then
    for x, y in zip(jax.tree.leaves((found, last)), jax.tree.leaves(expected), strict=True):
        if jnp.issubdtype(x.dtype, jnp.integer) or jnp.finfo(x.dtype).bits < 32:
            np.testing.assert_array_equal(x, y)  # codes, counts, remainders, rounded parameters
        else:
            np.testing.assert_array_max_ulp(np.asarray(x), np.asarray(y), ULPS)
