import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.core.chain import chain

PARAMS = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
GRADIENTS = {"w": jnp.array([0.1, -0.3]), "b": jnp.array(0.7)}
ONLY_W = {"w": True, "b": False}
SCHEDULE = optax.linear_schedule(0.1, 0.0, 10)


def after_two_steps(tx):
    """The updates and the state of the second jitted step."""
    step, state = jax.jit(tx.update), tx.init(PARAMS)
    _, state = step(GRADIENTS, state, PARAMS)
    return step(GRADIENTS, state, PARAMS)


def bits(tree):
    return jax.tree.map(lambda x: (x.dtype, np.asarray(x).tobytes()), tree)


def layout(tree):
    return [(jax.tree_util.keystr(path), x.shape, x.dtype) for path, x in jax.tree_util.tree_leaves_with_path(tree)]


@pytest.mark.slow
def test_join_has_the_state_of_its_first_stage():
    joined = adamx.join(adamx.scale_by_moments(), adamx.bias_correction())
    _, ours = after_two_steps(joined)
    _, theirs = after_two_steps(optax.scale_by_adam())
    assert isinstance(ours, adamx.MomentsState)
    assert ours._fields == theirs._fields
    assert bits(ours) == bits(theirs)


@pytest.mark.parametrize("compose", [adamx.join, chain])
def test_every_stage_gets_parameters_and_extra_arguments(compose):
    def update(updates, state, params, *, value, **extra):
        return jax.tree.map(lambda u: u * value, updates), state

    by_value = optax.GradientTransformationExtraArgs(optax.identity().init, update)
    stages = adamx.scale_by_adam(), adamx.add_decayed_weights(0.1), by_value, adamx.scale_by_lr(0.1)
    composed, peer = compose(*stages), optax.chain(*stages)
    ours, _ = composed.update(GRADIENTS, composed.init(PARAMS), PARAMS, value=2.0, unknown="any")
    expected, _ = peer.update(GRADIENTS, peer.init(PARAMS), PARAMS, value=2.0, unknown="any")
    assert bits(ours) == bits(expected)


STATEFUL = {
    "TraceState": optax.trace(0.9),
    "ScaleByScheduleState": adamx.scale_by_lr(SCHEDULE),
    "MomentsState": adamx.scale_by_moments(),
    "MaskedState": optax.masked(optax.scale(0.5), ONLY_W),
    "dict": optax.GradientTransformation(lambda params: params, lambda updates, state, params=None: (updates, state)),
}


@pytest.mark.parametrize("state", STATEFUL)
def test_join_refuses_a_later_stage_with_a_state(state):
    joined = adamx.join(adamx.scale_by_adam(), optax.identity(), STATEFUL[state])
    with pytest.raises(TypeError, match=rf"stage 2 has a state, {state}: use optax\.chain"):
        joined.init(PARAMS)


def test_the_states_are_where_optax_has_them():
    _, state = after_two_steps(adamx.adam(SCHEDULE))
    assert state[0].mu.keys() == state[0].nu.keys() == PARAMS.keys()
    assert state[0].count == state[1].count == 2


SETTINGS = {
    "constant": {},
    "schedule": {"learning_rate": SCHEDULE},
    "nesterov": {"nesterov": True},
    "mu_dtype": {"mu_dtype": jnp.bfloat16},
}
DECAYS = {
    "weight_decay": {"weight_decay": 0.1},
    "mask": {"mask": ONLY_W},
    "mask function": {"mask": lambda params: jax.tree.map(lambda p: p.ndim > 0, params)},
}
if optax.add_decayed_weights(SCHEDULE).init(PARAMS) != optax.EmptyState():  # not in the oldest optax that we support
    DECAYS |= {
        "scheduled decay": {"weight_decay": SCHEDULE},
        "scheduled decay, mask, schedule": {"weight_decay": SCHEDULE, "mask": ONLY_W, "learning_rate": SCHEDULE},
    }
PEERS = {
    **{f"adam {name}": (adamx.adam, optax.adam, settings) for name, settings in SETTINGS.items()},
    **{f"adamw {name}": (adamx.adamw, optax.adamw, settings) for name, settings in (SETTINGS | DECAYS).items()},
}


@pytest.mark.parametrize(("make", "peer", "settings"), PEERS.values(), ids=PEERS)
def test_the_state_has_the_layout_of_optax(make, peer, settings):
    tx, peer = (factory(**{"learning_rate": 0.1, **settings}) for factory in (make, peer))
    ours, theirs = tx.init(PARAMS), peer.init(PARAMS)
    assert layout(ours) == layout(theirs)
    updated = jax.eval_shape(lambda: (tx.update(GRADIENTS, ours, PARAMS), peer.update(GRADIENTS, theirs, PARAMS)))
    assert layout(updated[0]) == layout(updated[1])
