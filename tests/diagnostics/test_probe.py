import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx

PARAMS = {"w": jnp.ones((33, 7)), "deep": [jnp.ones(()), jnp.ones(5, jnp.bfloat16)], "none": None}
CODED = adamx.storage.Int8(block_size=32, min_size=0)
RATE = optax.cosine_decay_schedule(0.1, 100)


def chain(*probes, **arguments):
    return optax.chain(adamx.scale_by_moments(**arguments), *probes, adamx.bias_correction(), adamx.scale_by_lr(RATE))


def train(tx, steps=12):
    @jax.jit
    def step(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    random = np.random.default_rng(0)
    params, state, history = PARAMS, tx.init(PARAMS), []
    for _ in range(steps):
        gradients = jax.tree.map(lambda p: jnp.asarray(random.standard_normal(p.shape), p.dtype), PARAMS)
        params, state = step(params, state, gradients)
        history.append(state)
    assert step._cache_size() == 1
    return params, history


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize(
    "arguments", [{}, {"mu_dtype": "bfloat16", "nu_dtype": "bfloat16"}, {"mu_dtype": CODED, "nu_dtype": CODED}]
)
def test_no_bit_of_the_updates_changes(every, arguments):
    params, _ = train(chain(**arguments))
    probed, _ = train(chain(adamx.diagnostics.probe(RATE, every=every), **arguments))
    for x, y in zip(jax.tree.leaves(params), jax.tree.leaves(probed), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.slow
def test_measures_at_the_first_step_and_then_every_so_often():
    _, history = train(chain(adamx.diagnostics.probe(RATE, every=5)))
    steps = [adamx.diagnostics.diagnose(state)["w"].step for state in history]
    assert steps == [1, 1, 1, 1, 1, 6, 6, 6, 6, 6, 11, 11]


@pytest.mark.slow
def test_the_numbers_are_those_of_the_step():
    tx = chain(adamx.diagnostics.probe(RATE, every=1))
    params = {"w": jnp.asarray([1.0, 10.0])}
    state = tx.init(params)
    for g in ([1.0, -1.0], [3.0, 1.0]):
        before, (updates, state) = params, tx.update({"w": jnp.asarray(g)}, state, params)
        params = optax.apply_updates(params, updates)
    found = adamx.diagnostics.diagnose(state)["w"]
    direction = np.abs(np.asarray(updates["w"])) / float(RATE(1))
    assert found.signal_to_noise == pytest.approx(direction.mean(), rel=1e-5)
    norms = float(jnp.linalg.norm(updates["w"]) / jnp.linalg.norm(before["w"]))
    assert found.update_ratio == pytest.approx(norms, rel=1e-5)


@pytest.mark.slow
def test_without_a_rate_or_parameters():
    tx = optax.chain(adamx.scale_by_moments(), adamx.diagnostics.probe(), adamx.bias_correction())
    _, state = tx.update({"w": jnp.ones(3)}, tx.init({"w": jnp.ones(3)}))
    found = adamx.diagnostics.diagnose(state)["w"]
    assert np.isnan(found.update_ratio)
    assert found.spike == pytest.approx(1, rel=1e-4)


def test_errors():
    with pytest.raises(TypeError, match="every must be an integer"):
        adamx.diagnostics.probe(every=0.5)
    with pytest.raises(ValueError, match="every must be at least 1"):
        adamx.diagnostics.probe(every=0)
    with pytest.raises(ValueError, match="learning_rate must be a finite number"):
        adamx.diagnostics.probe(-1.0)
    tx = adamx.diagnostics.probe()
    with pytest.raises(TypeError, match="takes the Moments that scale_by_moments emits"):
        tx.update(jnp.ones(1), tx.init(jnp.ones(1)))
    moments, _ = adamx.scale_by_moments().update(jnp.ones(1), adamx.scale_by_moments().init(jnp.ones(1)))
    with pytest.raises(TypeError, match="expected the state that init returned, ProbeState"):
        tx.update(moments, optax.EmptyState())
    with pytest.raises(ValueError, match="was made for 2 leaves and got 1"):
        tx.update(moments, tx.init({"a": jnp.ones(1), "b": jnp.ones(1)}))


@pytest.mark.slow
def test_empty_trees_and_scan_and_vmap():
    tx = chain(adamx.diagnostics.probe(0.1, every=2))
    tx.update({}, tx.init({}))

    def step(state, g):
        return tx.update(g, state, g)[1], None

    state, _ = jax.lax.scan(step, tx.init(jnp.ones(3)), jnp.ones((4, 3)))
    assert adamx.diagnostics.diagnose(state)["the tree itself"].step == 3
    several = jax.vmap(lambda g: tx.update(g, tx.init(g), g)[1])(jnp.ones((2, 3)))
    assert several[1].measured.shape == (2, 1, 7)
