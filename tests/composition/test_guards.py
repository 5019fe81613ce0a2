"""Guards around and inside of what they are combined with, and what they cost."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from adamx.spikes import SkipSpikesState
from tests.backends import stepped

CLIPPED = adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adamw(0.01))
MESH = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))


def norms_in(tx, through="step"):
    """How many sums over all of a gradient are in the compiled program."""
    params = {"w": jnp.ones((300, 301))}
    text = stepped(tx, through).lower(params, tx.init(params), params).compile().as_text()
    return len(re.findall(r"(?:reduce|dot)\(\S*(?:\s\S+)*?\), dimensions=\{[01,]+\}", text)), text


@pytest.mark.slow
def test_a_clip_inside_takes_no_norm_of_its_own():
    for through in ("step", "update"):
        alone, clipped = (norms_in(adamx.skip_spikes(tx), through)[0] for tx in (adamx.adamw(0.01), CLIPPED))
        assert norms_in(CLIPPED, through)[0] > 0
        assert alone == clipped


@pytest.mark.slow
def test_copies_no_more_than_a_clip():
    params = {"w": jnp.ones((512, 512))}

    def room(tx):
        step = jax.jit(lambda p, s, g: adamx.step(tx, g, s, p), donate_argnums=(0, 1))
        return step.lower(params, tx.init(params), params).compile().memory_analysis().temp_size_in_bytes

    assert room(adamx.skip_spikes(CLIPPED)) <= room(CLIPPED) + 65536


@pytest.mark.slow
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, 1000.0])
@pytest.mark.parametrize("inner", [CLIPPED, adamx.skip_nonfinite(adamx.adam(0.1))], ids=["clip", "guard"])
def test_a_skipped_step_says_nothing_to_debug_nans(bad, inner):
    start, tx = jnp.ones(4), adamx.skip_spikes(inner, window=2)
    gradients, state = [start, start * 1.1, start * bad], tx.init(start)
    with jax.debug_nans(True), jax.debug_infs(True):
        for step in (lambda p, s, g: adamx.step(tx, g, s, p), stepped(tx), stepped(tx, "update")):
            params, after = start, state
            for g in gradients:
                before, (params, after) = params, step(params, after, g)
            np.testing.assert_array_equal(params, before)
            assert int(after.skipped) == 1


def spikes(tx):
    return adamx.skip_spikes(tx, window=2)


WRAPS = {
    "guard": adamx.skip_nonfinite,
    "masters": adamx.with_master_weights,
    "rounding": adamx.with_stochastic_rounding,
    "shards": lambda tx: adamx.shard_state(tx, MESH),
    "chain": lambda tx: adamx.chain(tx, adamx.scale_by_path({"b": 0.5})),
}
BOTH = {
    **{f"around {name}": (lambda tx, wrap=wrap: spikes(wrap(tx))) for name, wrap in WRAPS.items()},
    **{f"inside {name}": (lambda tx, wrap=wrap: wrap(spikes(tx))) for name, wrap in WRAPS.items()},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOTH)
def test_around_and_inside_of_other_wrappers(name):
    params = {"w": jnp.ones((128, 2), jnp.bfloat16), "b": jnp.ones(128)}
    tx = BOTH[name](adamx.adamw(0.1))
    assert adamx.explain(tx, params).one_pass
    for through in ("step", "update"):
        moved, state, step = params, tx.init(params), stepped(tx, through)
        for size in (1.0, 1.0, 1000.0, jnp.nan):
            before, (moved, state) = moved, step(moved, state, jax.tree.map(lambda p, s=size: p * s, params))
        for x, y in zip(*map(jax.tree.leaves, (moved, before)), strict=True):
            np.testing.assert_array_equal(x, y)
        guard = next(s for s in jax.tree.leaves(state, is_leaf=is_spikes) if is_spikes(s))
        assert int(guard.skipped) == (1 if name == "inside guard" else 2)


def is_spikes(node):
    return isinstance(node, SkipSpikesState)
