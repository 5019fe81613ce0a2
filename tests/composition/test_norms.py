"""`adamx.with_norms` in and around other wrappers: each norm is that of the arrays, by `update` and by `step`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from adamx.metrics import read_norms
from tests.backends import composed, differing, jitted
from tests.norms import PATTERNS, ROUNDED, assert_norms, each_way, expected, norm, tree

CLIPPED = adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adamw(0.1))


@pytest.mark.slow
@each_way
@pytest.mark.parametrize(
    "around", [adamx.with_master_weights, adamx.with_stochastic_rounding], ids=["master", "dithered"]
)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
def test_half_precision(around, dtype, inside, way):
    wrap = (lambda tx: around(adamx.with_norms(tx, *PATTERNS))) if inside else (
        lambda tx: adamx.with_norms(around(tx), *PATTERNS)
    )  # fmt: skip
    tx, params, gradients = wrap(adamx.adamw(0.1)), tree(0, dtype), tree(1, dtype)
    state = tx.init(params)
    for _ in range(2):
        before, last = params, state
        params, state = way(tx)(params, state, gradients)
    master = around is adamx.with_master_weights
    weights = [adamx.master_params(s, p) if master else jax.tree.map(lambda x: x.astype("float32"), p)
               for s, p in ((last, before), (state, params))]  # fmt: skip
    wanted, got = expected(gradients, *weights), read_norms(state)
    for name, x in wanted.items():
        loose = "updates" in name and (not master or (way is composed and not inside))
        # a dithered parameter lands a unit away; a master weight is behind its parameter by half a unit
        rounds = not master and inside and "params" in name
        np.testing.assert_allclose(got[name], x, rtol=0.05 if loose else 1e-3 if rounds else 1e-4, err_msg=name)


@pytest.mark.slow
@each_way
def test_a_guard_inside_measures_a_step_that_it_skips(way):
    tx, params, gradients = adamx.with_norms(adamx.skip_nonfinite(CLIPPED)), tree(0), tree(1)
    moved, state = way(tx)(params, tx.init(params), gradients)
    bad = jax.tree.map(lambda g: g.at[0].set(jnp.inf), gradients)
    same, state = way(tx)(moved, state, bad)
    assert differing(same, moved) == []
    got = read_norms(state)
    assert (float(got["gradients/all"]), float(got["updates/all"])) == (np.inf, 0.0)
    np.testing.assert_allclose(got["params/all"], norm(moved), rtol=ROUNDED)


@pytest.mark.slow
@each_way
def test_a_guard_around_keeps_the_last_norms(way):
    tx, params, gradients = adamx.skip_nonfinite(adamx.with_norms(CLIPPED)), tree(0), tree(1)
    moved, taken = way(tx)(params, tx.init(params), gradients)
    _, state = way(tx)(moved, taken, jax.tree.map(lambda g: g * jnp.nan, gradients))
    assert int(state.skipped) == 1
    assert_norms(state, expected(gradients, params, moved, ()))


@pytest.mark.slow
@each_way
def test_microbatches(way):
    first, second, params = tree(1), tree(2), tree(0)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, first, second)
    outside, inside = adamx.with_norms(adamx.accumulate(CLIPPED, 2)), adamx.accumulate(adamx.with_norms(CLIPPED), 2)
    same, state = way(outside)(params, outside.init(params), first)
    assert_norms(state, expected(first, params, same, ()))
    moved, state = way(outside)(same, state, second)
    assert_norms(state, expected(second, params, moved, ()))
    same, state = way(inside)(params, inside.init(params), first)
    assert max(read_norms(state).values()) == 0
    moved, state = way(inside)(same, state, second)
    assert_norms(state, expected(mean, params, moved, ()))


@pytest.mark.slow
@each_way
def test_a_clip_in_front_of_it_gives_clipped_gradients(way):
    tx, params = adamx.chain(adamx.clip_by_global_norm(0.5), adamx.with_norms(adamx.adamw(0.1), "^head/")), tree(0)
    _, state = way(tx)(params, tx.init(params), params)
    got = read_norms(state)
    np.testing.assert_allclose(got["gradients/all"], 0.5, rtol=1e-5)
    np.testing.assert_allclose(got["gradients/^head/"], 0.5 * norm(params, "^head/") / norm(params), rtol=1e-5)


@pytest.mark.slow
def test_in_a_scan_and_mapped():
    tx, params = adamx.with_norms(CLIPPED, *PATTERNS), tree(0)
    stream = jax.tree.map(lambda *x: jnp.stack(x), *[tree(seed) for seed in (1, 2)])

    def run(params, stream):
        def body(carry, g):
            return adamx.step(tx, g, carry[1], carry[0]), None

        return jax.lax.scan(body, (params, tx.init(params)), stream)[0]

    got, state = jax.jit(run)(params, stream)
    (mapped, of_all) = jax.jit(jax.vmap(run))(*jax.tree.map(lambda x: x[None], (params, stream)))
    for name, x in read_norms(state).items():
        np.testing.assert_allclose(read_norms(of_all)[name], [x], rtol=1e-5)
    np.testing.assert_allclose(state.params["all"], norm(got), rtol=ROUNDED)
    np.testing.assert_allclose(mapped["head"]["kernel"][0], got["head"]["kernel"], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_group_measures_itself():
    tx = adamx.route({"^head": adamx.with_norms(adamx.adamw(0.1))}, default=adamx.adamw(0.1))
    params, gradients = tree(0), tree(1)
    moved, state = jitted(tx)(params, tx.init(params), gradients)
    wanted = expected(*({"head": x["head"]} for x in (gradients, params, moved)), ())
    assert_norms(state, wanted)
    both = adamx.with_norms(tx, *PATTERNS)
    moved, state = jitted(both)(params, both.init(params), gradients)
    assert_norms(state._replace(inner=()), expected(gradients, params, moved))


@pytest.mark.slow
def test_on_host():
    tx, params, gradients = adamx.on_host(adamx.with_norms(CLIPPED), donate=False), tree(0), tree(1)
    moved, state = adamx.step(tx, gradients, tx.init(params), params)
    assert_norms(state, expected(gradients, params, moved, ()))
