import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.accumulation import AccumulateState
from tests.backends import composed, jitted, needs_kernel

SHAPES = {"dense/kernel": (100, 256), "dense/bias": (20_000,), "scale": ()}
INT8 = dict.fromkeys(("mu_dtype", "nu_dtype"), adamx.storage.Int8(64, 0))
MESH = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
K = 3


def tree(seed, dtype="float32"):
    random = np.random.default_rng(seed)
    return {name: jnp.asarray(random.standard_normal(shape), dtype) for name, shape in SHAPES.items()}


def adamw(**storage):
    schedule = optax.linear_schedule(0.1, 0.0, 9)
    return adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adamw(schedule, 0.5, 0.5, weight_decay=0.1, **storage))


def run(step, tx, params, gradients):
    state = tx.init(params)
    for g in gradients:
        params, state = step(params, state, g)
    return params, state


@jax.jit
def mean(*gradients):
    """In float32, summed from the first one on."""
    wide = [jax.tree.map(lambda g: g.astype(jnp.float32), g) for g in gradients]
    total = wide[0]
    for g in wide[1:]:
        total = jax.tree.map(jnp.add, total, g)
    return jax.tree.map(lambda g: g / len(gradients), total)


def stream(steps, dtype="float32"):
    return [tree(t + 1, dtype) for t in range(steps * K)]


def same(x, y):
    jax.tree.map(np.testing.assert_array_equal, x, y)


WRAPPED = {  # around the accumulation, inside of it, and the dtype of the parameters
    "adamw": (lambda tx: tx, adamw, "float32"),
    "int8": (lambda tx: tx, lambda: adamw(**INT8), "float32"),
    "bfloat16": (lambda tx: tx, lambda: adamw(mu_dtype="bfloat16", nu_dtype="bfloat16"), "float32"),
    "float16 v": (lambda tx: tx, lambda: adamw(nu_dtype="float16"), "float32"),
    "guard inside": (lambda tx: tx, lambda: adamx.skip_nonfinite(adamw()), "float32"),
    "masters inside": (lambda tx: tx, lambda: adamx.with_master_weights(adamw()), "bfloat16"),
    "dither inside": (lambda tx: tx, lambda: adamx.with_stochastic_rounding(adamw()), "bfloat16"),
    "shards": (lambda tx: adamx.shard_state(tx, MESH), adamw, "float32"),
    "guard around": (adamx.skip_nonfinite, adamw, "float32"),
    "masters around": (adamx.with_master_weights, adamw, "bfloat16"),
    "optax": (lambda tx: tx, lambda: optax.adamw(0.1), "float32"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRAPPED)
def test_a_step_is_one_with_the_mean(name):
    around, inside, dtype = WRAPPED[name]
    params, gradients = tree(0, dtype), stream(2, dtype)
    tx, whole = around(adamx.accumulate(inside(), K)), around(inside())
    averages = [mean(*gradients[i : i + K]) for i in range(0, len(gradients), K)]
    for way in (jitted, composed):
        moved, _ = run(way(tx), tx, params, gradients)
        expected, _ = run(way(whole), whole, params, averages)
        if way is jitted and jax.__version_info__ >= (0, 7):
            same(moved, expected)
        else:  # the compiler contracts a product into a sum in one of the programs; a unit of that may turn a code
            off = 2e-6 if way is composed and jax.__version_info__ >= (0, 7) else 1e-3
            jax.tree.map(lambda x, y, off=off: np.testing.assert_allclose(x, y, rtol=off, atol=off), moved, expected)


def test_between_steps_nothing_moves_but_the_sum():
    tx, params = adamx.accumulate(adamw(), K), tree(0)
    state, step = tx.init(params), jitted(tx)
    for t, g in enumerate(stream(2)):
        moved, after = step(params, state, g)
        took_a_step = (t + 1) % K == 0
        assert (int(after.mini_step), int(after.gradient_step)) == ((t + 1) % K, (t + 1) // K)
        if not took_a_step:
            same((moved, after.inner_opt_state), (params, state.inner_opt_state))
        else:
            assert float(jnp.abs(moved["scale"] - params["scale"])) > 1e-3
        params, state = moved, after


@pytest.mark.slow
def test_updates_are_those_of_multi_steps():
    theirs = optax.MultiSteps(optax.adam(0.1), K).gradient_transformation()
    ours, params = adamx.accumulate(adamx.adam(0.1), K), tree(0)
    x, y = theirs.init(params), ours.init(params)
    assert set(AccumulateState._fields) <= set(x._fields)
    for g in stream(2):
        u, x = jax.jit(theirs.update)(g, x, params)
        v, y = jax.jit(ours.update)(g, y, params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), u, v)
        assert (int(x.mini_step), int(x.gradient_step)) == (int(y.mini_step), int(y.gradient_step))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", adamx.storage.Int8(64, 0)], ids=str)
def test_half_precision_sums_are_right_on_average(dtype):
    k = 64
    tx = adamx.accumulate(optax.sgd(1.0), k, dtype)
    gradient = {"w": jnp.full((64, 64), 1.0) + jnp.arange(64) / 64}
    params = jax.tree.map(jnp.zeros_like, gradient)
    moved, state = run(jitted(tx), tx, params, [gradient] * k)
    assert int(state.gradient_step) == 1
    off = -np.asarray(moved["w"]) / np.asarray(gradient["w"]) - 1
    assert abs(off.mean()) < 1e-3  # rounded to nearest, a sum of 64 in bfloat16 ends 2 % off
    assert np.abs(off).max() < 0.05


@pytest.mark.slow
@needs_kernel
@pytest.mark.parametrize("name", sorted(WRAPPED.keys() - {"optax", "float16 v"}))
def test_the_pass_is_kept_and_nothing_is_copied(name):
    around, inside, dtype = WRAPPED[name]
    tx, params = around(adamx.accumulate(inside(), K)), tree(0, dtype)
    step = jax.jit(lambda p, s, g: adamx.step(tx, g, s, p), donate_argnums=(0, 1))
    lowered = step.lower(params, tx.init(params), params)
    assert lowered.as_text().count("@adamx_step") == 1
    assert adamx.explain(tx, params).one_pass
    if around is adamx.skip_nonfinite or dtype != "float32" or jax.__version_info__ < (0, 7):
        return  # jax 0.6 writes what a norm is taken of to memory
    elements = sum(x.size for x in jax.tree.leaves(params))
    assert lowered.compile().memory_analysis().temp_size_in_bytes < 0.01 * 4 * elements + 4096


def test_the_number_may_follow_a_schedule():
    tx = adamx.accumulate(adamx.adam(0.1), lambda step: jnp.where(step < 2, 1, 3))
    params, found = tree(0), []
    state, step = tx.init(params), jitted(tx)
    for g in stream(3)[:8]:
        params, state = step(params, state, g)
        found.append(int(state.gradient_step))
    assert found == [1, 2, 2, 2, 3, 3, 3, 4]


@pytest.mark.slow
def test_a_scan_carries_it():
    tx, params, gradients = adamx.accumulate(adamw(), K, "bfloat16"), tree(0), stream(2)
    step = jitted(tx)
    stacked = jax.tree.map(lambda *g: jnp.stack(g), *gradients)
    scanned, _ = jax.lax.scan(lambda c, g: (step(*c, g), None), (params, tx.init(params)), stacked)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), scanned, run(step, tx, params, gradients)
    )


@pytest.mark.slow
def test_a_clip_outside_is_of_each_microbatch():
    outside = adamx.chain(adamx.clip_by_global_norm(1.0), adamx.accumulate(optax.sgd(1.0), K))
    params, gradients = tree(0), stream(1)
    moved, _ = run(jitted(outside), outside, params, gradients)
    norms = [adamx.clip.global_norm(g) for g in gradients]
    expected = jax.tree.map(lambda p, *g: p - sum(x / n for x, n in zip(g, norms, strict=True)) / K, params, *gradients)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), moved, expected)


@pytest.mark.slow
def test_what_stands_behind_it_acts_in_every_call_as_in_update():
    tx = adamx.chain(adamx.accumulate(adamx.scale_by_adam(), 2), adamx.add_decayed_weights(0.5), adamx.scale_by_lr(0.1))
    params, gradients = tree(0), stream(1)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
        run(jitted(tx), tx, params, gradients)[0],
        run(composed(tx), tx, params, gradients)[0],
    )


def test_mixed_dtypes_and_what_is_no_array():
    params = {"a": jnp.ones(3, jnp.bfloat16), "b": jnp.ones(2), "c": None, "d": jnp.ones((), jnp.float16)}
    gradients = {"a": jnp.ones(3), "b": jnp.full(2, 2.0, jnp.bfloat16), "c": None, "d": jnp.ones((), jnp.float16)}
    tx = adamx.accumulate(adamx.adam(0.125), 2)
    moved, state = run(jitted(tx), tx, params, [gradients] * 2)
    assert jax.tree.map(lambda x: x.dtype, moved) == jax.tree.map(lambda x: x.dtype, params)
    assert {x.dtype for x in jax.tree.leaves(state.acc_grads)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(np.asarray(moved["b"]), 0.875, rtol=1e-3)
    adamx.interop.check_restored(tx, state, params)


def test_float64(x64):
    tx, params = adamx.accumulate(adamx.adam(0.1), 2), {"w": jnp.ones(3, jnp.float64)}
    _, state = run(jitted(tx), tx, params, [params])
    assert state.acc_grads["w"].dtype == jnp.float64


def test_wrong_arguments_are_told():
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        adamx.accumulate(adamx.adam(0.1), 0)
    with pytest.raises(TypeError, match=r"every must be an integer, got 2\.5"):
        adamx.accumulate(adamx.adam(0.1), 2.5)
    with pytest.raises(TypeError, match=r"every schedule .* must take the step count and return a number"):
        adamx.accumulate(adamx.adam(0.1), lambda: 3).init(tree(0))
    tx, params = adamx.accumulate(adamx.adam(0.1), 2), tree(0)
    with pytest.raises(TypeError, match="expected the state that init returned, AccumulateState, got tuple"):
        tx.update(params, adamx.adam(0.1).init(params), params)
    with pytest.raises(ValueError, match=r"gradient at scale has shape \(1,\)"):
        tx.update({**params, "scale": jnp.ones(1)}, tx.init(params), params)
