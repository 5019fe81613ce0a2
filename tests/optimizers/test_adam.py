from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.testing import assert_equivalent, reference_adam

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "torch.npz")
EVERY, RATE = int(GOLDEN["every"]), float(GOLDEN["rate"])
TORCH = {
    "adam": adamx.adam,
    "adam_eps": lambda rate: adamx.adam(rate, 0.8, 0.99, 1e-3),
    "adamw": lambda rate: adamx.adamw(rate, weight_decay=0.1),
    "nadam": lambda rate: adamx.adam(rate, nesterov=True),
}


@pytest.mark.parametrize("precise", [False, True])
@pytest.mark.parametrize("name", TORCH)
def test_matches_torch_in_float64(name, precise, x64):
    tx = TORCH[name](RATE)
    if precise and name == "adam":
        tx = adamx.adam(RATE, precise=True)
    theta = jnp.asarray(GOLDEN["theta"])
    state, found = tx.init(theta), []

    @jax.jit
    def step(theta, state, g):
        updates, state = tx.update(g, state, theta)
        return optax.apply_updates(theta, updates), state

    for g in GOLDEN["gradients"]:
        theta, state = step(theta, state, jnp.asarray(g))
        found.append(theta)
    np.testing.assert_allclose(found[EVERY - 1 :: EVERY], GOLDEN[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", TORCH)
def test_the_oracle_matches_torch(name):
    arguments = {
        "adam": {},
        "adam_eps": {"beta1": 0.8, "beta2": 0.99, "epsilon": 1e-3},
        "adamw": {"weight_decay": 0.1},
        "nadam": {"nesterov": True},
    }[name]
    path = reference_adam(GOLDEN["theta"], GOLDEN["gradients"], RATE, **arguments).theta
    np.testing.assert_allclose(path[EVERY - 1 :: EVERY], GOLDEN[name], rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("nesterov", [False, True])
def test_by_hand_is_the_alias(draw, stream, nesterov):
    between = [adamx.nesterov()] if nesterov else []
    by_hand = optax.chain(adamx.scale_by_moments(), *between, adamx.bias_correction(), adamx.scale_by_lr(1e-3))
    params, gradients, alias = draw(0), stream(20), adamx.adam(1e-3, nesterov=nesterov)
    state, reference = by_hand.init(params), alias.init(params)
    ours, theirs = jax.jit(by_hand.update), jax.jit(alias.update)
    for g in gradients:
        u, state = ours(g, state)
        w, reference = theirs(g, reference)
        jax.tree.map(np.testing.assert_array_equal, u, w)


@pytest.mark.slow
def test_scale_by_adam_has_the_bits_of_optax(draw, stream):
    assert_equivalent(adamx.scale_by_adam(), optax.scale_by_adam(), draw(0), stream(50))


@pytest.mark.slow
def test_injected_hyperparameters_have_the_bits_of_optax(draw, stream):
    ours, theirs = (optax.inject_hyperparams(f)(1e-3, b2=0.99) for f in (adamx.adam, optax.adam))
    assert_equivalent(ours, theirs, draw(0), stream(50))
    assert_equivalent(ours, theirs, draw(0), stream(5), jit=False)


@pytest.mark.slow
def test_restored_from_a_checkpoint_of_optax(tmp_path, draw, stream):
    ocp = pytest.importorskip("orbax.checkpoint")
    ours, theirs = adamx.adam(optax.linear_schedule(1e-3, 0.0, 99)), optax.adam(optax.linear_schedule(1e-3, 0.0, 99))
    keep = ("encoder", "wide")  # Orbax refuses arrays of size zero
    params, gradients = {k: draw(0)[k] for k in keep}, [{k: g[k] for k in keep} for g in stream(20)]
    step_ours, step_theirs = jax.jit(ours.update), jax.jit(theirs.update)
    reference = theirs.init(params)
    for g in gradients[:10]:
        _, reference = step_theirs(g, reference)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", {"opt": reference})
        checkpointer.wait_until_finished()
        state = checkpointer.restore(tmp_path / "state", {"opt": ours.init(params)})["opt"]
    assert isinstance(state[0], adamx.MomentsState)
    for g in gradients[10:]:
        u, state = step_ours(g, state)
        w, reference = step_theirs(g, reference)
        jax.tree.map(np.testing.assert_array_equal, u, w)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(reference), strict=True):
        np.testing.assert_array_equal(a, b)
