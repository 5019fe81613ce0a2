"""The forms of weight decay against float64, through `update` and through `adamx.step`, in whatever is around them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from tests.backends import composed, differing, jitted, needs_kernel, ulps

ALPHA, LAMBDA, B, STEPS = 0.01, 0.1, 0.5, 4
RATE = optax.linear_schedule(ALPHA, 0.0, STEPS)
TREE = {"w": (64, 300), "odd": (3, 11), "b": (300,)}
DECAYS = {"w": True, "odd": True, "b": False}
RELATIVE = adamx.relative_decay(LAMBDA, RATE, ALPHA)


def of_all(seed, dtype="bfloat16"):
    random = np.random.default_rng(seed)
    leaves = {name: jnp.asarray(random.standard_normal(shape), "bfloat16") for name, shape in TREE.items()}
    return jax.tree.map(lambda x: x.astype(dtype), leaves)


def chained(*behind, before=(), **arguments):
    return adamx.chain(adamx.scale_by_adam(B, B, **arguments), *before, adamx.scale_by_lr(RATE), *behind)


def before(weight_decay, cautious=False):
    return lambda **kw: chained(before=[adamx.add_decayed_weights(weight_decay, DECAYS, cautious=cautious)], **kw)


def behind(weight_decay, cautious=False):
    return lambda **kw: chained(adamx.decay_weights(weight_decay, DECAYS, cautious=cautious), **kw)


FORMS = {  # the optimizer; and from α_t, u and θ to what decays
    "coupled": (before(LAMBDA), lambda a, u, p: a * LAMBDA * p),
    "corrected": (before(RELATIVE), lambda a, u, p: a * LAMBDA * a / ALPHA * p),
    "cautious": (before(LAMBDA, cautious=True), lambda a, u, p: a * LAMBDA * p * (u * p >= 0)),
    "independent": (behind(LAMBDA), lambda a, u, p: LAMBDA * p),
    "independent, scheduled": (behind(RELATIVE), lambda a, u, p: LAMBDA * a / ALPHA * p),
    "independent, cautious": (behind(LAMBDA, cautious=True), lambda a, u, p: LAMBDA * p * (u * p >= 0)),
}

INT8 = adamx.storage.Int8(64, 0)
STORAGES = {
    "float32": {},
    "bfloat16": {"mu_dtype": "bfloat16", "nu_dtype": "bfloat16"},
    "int8": {"mu_dtype": INT8, "nu_dtype": INT8},
    "float16, left to XLA": {"mu_dtype": "float16", "nu_dtype": "float16"},
}
AROUND = {
    "nothing": (lambda tx: tx, "float32"),
    "half precision": (lambda tx: tx, "bfloat16"),
    "master weights": (adamx.with_master_weights, "bfloat16"),
    "float16 masters": (adamx.with_master_weights, "float16"),
    "stochastic rounding": (adamx.with_stochastic_rounding, "bfloat16"),
    "a guard": (adamx.skip_nonfinite, "float32"),
    "a clip": (lambda tx: adamx.chain(adamx.clip_by_global_norm(1.0), tx), "float32"),
    "shards": (lambda tx: adamx.shard_state(tx, jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))), "float32"),
}
BACKENDS = [pytest.param("auto", marks=needs_kernel), "xla"]


def exact(decay):
    """Parameters after all steps in float64."""
    params = {name: np.asarray(p, np.float64) for name, p in of_all(0).items()}
    for name, p in params.items():
        m, v, end = 0.0, 0.0, p
        for t in range(STEPS):
            g, alpha = np.asarray(of_all(t + 1)[name], np.float64), ALPHA * (1 - t / STEPS)
            m, v, weight = B * m + (1 - B) * g, B * v + (1 - B) * g * g, 1 - B ** (t + 1)
            u = m / weight / (np.sqrt(v / weight) + 1e-8)
            end = end - alpha * u - (decay(alpha, u, end) if DECAYS[name] else 0)
        params[name] = end
    return params


@pytest.mark.parametrize("way", ["update", *BACKENDS])
@pytest.mark.parametrize("form", FORMS)
def test_follows_float64(form, way):
    build, decay = FORMS[form]
    tx, params = build(), of_all(0, "float32")
    step, state = composed(tx) if way == "update" else jitted(tx, backend=way), tx.init(params)
    for t in range(STEPS):
        params, state = step(params, state, of_all(t + 1, "float32"))
    for name, p in exact(decay).items():
        # A unit for each of three roundings a step, and 2^-24 of the longest update for each of its own.
        np.testing.assert_allclose(params[name], p, rtol=3 * STEPS * 2.0**-24, atol=8 * ALPHA * STEPS * 2.0**-24)


PAIRS = [*((storage, "nothing") for storage in STORAGES), *(("float32", around) for around in list(AROUND)[1:])]
PAIRS += [("int8", "master weights"), ("bfloat16", "stochastic rounding")]
NEW = ["independent, scheduled", "cautious", "independent, cautious"]


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("storage", "around"), PAIRS)
@pytest.mark.parametrize("form", NEW)
def test_ends_where_update_and_apply_updates_end(form, storage, around, backend):
    wrap, dtype = AROUND[around]
    tx, params = wrap(FORMS[form][0](**STORAGES[storage])), of_all(0, dtype)
    state, reference, step = tx.init(params), composed(tx), jitted(tx, backend=backend)
    for t in range(2):
        gradients = of_all(t + 1, dtype)
        got, after = step(params, state, gradients)
        expected, state = reference(params, state, gradients)
        assert jax.tree.structure((got, after)) == jax.tree.structure((expected, state))
        assert jax.tree.map(jnp.result_type, (got, after)) == jax.tree.map(jnp.result_type, (expected, state))
        for path, p in got.items():
            assert ulps(p, expected[path], jnp.maximum(jnp.abs(params[path].astype("float32")), 0.02)) <= 4, path
        params = expected


@needs_kernel
@pytest.mark.parametrize(
    ("form", "around"), [*((form, "nothing") for form in FORMS), *(("cautious", a) for a in AROUND)]
)
def test_the_one_pass_is_kept(form, around):
    wrap, dtype = AROUND[around]
    tx, params = wrap(FORMS[form][0]()), of_all(0, dtype)
    assert jitted(tx).lower(params, tx.init(params), params).as_text().count("@adamx_step") == 1
    found = adamx.explain(tx, params)
    assert found.one_pass
    assert found.leaves[-1].executor == "native"


@pytest.mark.slow
@needs_kernel
@pytest.mark.parametrize("cautious", [(True, False), (False, True), (True, True)])
def test_a_cautious_decay_beside_another_is_left_to_xla(cautious):
    stages = [adamx.add_decayed_weights(LAMBDA, DECAYS, cautious=flag) for flag in cautious]
    tx, params = chained(before=stages), of_all(0, "float32")
    found = {leaf.path: (leaf.executor, leaf.why) for leaf in adamx.explain(tx, params).leaves}
    assert found["w"] == ("xla", "several weight decays, one of them cautious")
    got, expected = (f(tx)(params, tx.init(params), of_all(1, "float32"))[0] for f in (jitted, composed))
    for name, p in got.items():
        assert ulps(p, expected[name], jnp.maximum(jnp.abs(params[name]), 0.02)) <= 4, name


MODES = {
    "strict promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "debug NaNs": lambda: jax.debug_nans(True),
    "no jit": jax.disable_jit,
    "x64": lambda: jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64(),
}


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", NEW)
def test_in_every_mode_of_jax(form, mode):
    tx, params, gradients = FORMS[form][0](), of_all(0, "float32"), of_all(1, "float32")
    expected, _ = composed(tx)(params, tx.init(params), gradients)
    with MODES[mode]():
        updates, _ = tx.update(gradients, tx.init(params), params)
        moved = optax.apply_updates(params, updates)
        stepped, state = jax.jit(lambda p, s, g: adamx.step(tx, g, s, p))(params, tx.init(params), gradients)
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, tx.init(params))
    for got in (moved, stepped):
        for name, p in got.items():
            assert p.dtype == jnp.float32
            assert ulps(p, expected[name], jnp.maximum(jnp.abs(params[name]), 0.02)) <= 4, name


@pytest.mark.parametrize("form", FORMS)
def test_a_scan_carries_the_state(form):
    tx, params, gradients = FORMS[form][0](), of_all(0, "float32"), of_all(1, "float32")
    step = jitted(tx)
    (got, state), _ = jax.lax.scan(lambda c, _: (step(*c, gradients), None), (params, tx.init(params)), length=2)
    expected = step(*step(params, tx.init(params), gradients), gradients)
    assert differing((got, state), expected) == []


def test_none_empty_leaves_and_no_leaves():
    for make in (adamx.add_decayed_weights, adamx.decay_weights):
        tx = adamx.chain(adamx.adam(0.1), make(0.5, cautious=True))
        for params in ({}, {"a": None, "b": jnp.zeros((0, 3)), "c": jnp.ones(2)}):
            got, _ = adamx.step(tx, params, tx.init(params), params)
            assert jax.tree.structure(got) == jax.tree.structure(params)


@pytest.mark.parametrize("stage", [adamx.add_decayed_weights, adamx.decay_weights])
def test_injected_and_partitioned(stage):
    params = {"a": jnp.asarray([2.0, -2.0]), "b": jnp.asarray([2.0])}
    updates = {"a": jnp.asarray([1.0, 1.0]), "b": jnp.asarray([1.0])}
    plain = stage(0.5, cautious=True)
    expected, _ = plain.update(updates, plain.init(params), params)
    injected = optax.inject_hyperparams(stage)(0.5, cautious=True)
    labelled = optax.partition({"x": stage(0.5, cautious=True)}, {"a": "x", "b": "x"})
    for tx in (injected, labelled, optax.masked(stage(0.5, cautious=True), True)):
        assert differing(tx.update(updates, tx.init(params), params)[0], expected) == []
