import copy
import functools
import pickle

import cloudpickle
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

import adamx
from adamx.core.step import Pass, Update, Weights, take_step


def double(updates, state, params=None, **extra_args):
    return jax.tree.map(lambda u: 2 * u, updates), state


def test_is_called_as_the_function_is():
    tx = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), Update(double))
    updates, state = tx.update(jnp.ones(2), tx.init(jnp.ones(2)), value=1.0)
    assert updates.tolist() == [2.0, 2.0]
    assert state == optax.EmptyState()


def test_a_copy_is_itself_as_that_of_a_function_is():
    update = Update(double)
    assert copy.copy(update) is update
    assert copy.deepcopy(update) is update
    assert jax.tree.leaves(update) == [update]


MAKERS = {
    "adamw": lambda: adamx.adamw(1e-3),
    "scheduled adamw": lambda: adamx.adamw(optax.constant_schedule(1e-3), mask=adamx.not_matching("b")),
    "guard": lambda: adamx.skip_nonfinite(adamx.adam(1e-3)),
    "master weights": lambda: adamx.with_master_weights(adamx.adam(1e-3)),
    "stochastic rounding": lambda: adamx.with_stochastic_rounding(adamx.adam(1e-3), seed=3),
    "guard around masters": lambda: adamx.skip_nonfinite(adamx.with_master_weights(adamx.adam(1e-3))),
    "shards": lambda: adamx.shard_state(adamx.adam(1e-3), jax.sharding.Mesh(jax.devices()[:1], ("data",))),
    "paths": lambda: adamx.chain(adamx.adam(1e-3), adamx.scale_by_path({"b": 0.1})),
    "probe": lambda: optax.chain(adamx.scale_by_moments(), adamx.diagnostics.probe(), adamx.bias_correction()),
    "chain of optax": lambda: optax.chain(optax.clip_by_global_norm(1.0), adamx.adam(1e-3)),
    "chain": lambda: adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adam(1e-3), adamx.scale_by_path({"b": 0.1})),
}
for name in ("adam", "amsgrad", "nadamw", "adamaxw", "radam", "adabelief", "adamw_atan2", "cautious_adamw", "mars"):
    MAKERS[name] = functools.partial(getattr(adamx, name), 1e-3)
for name in ("stable_adamw", "adopt", "ademamix"):
    MAKERS[name] = functools.partial(getattr(adamx, name), 1e-3, mu_dtype="bfloat16")

COPIES = {
    "tree.map": lambda tx: jax.tree.map(lambda x: x, tx),
    "flatten": lambda tx: jax.tree.unflatten(*jax.tree.flatten(tx)[::-1]),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "replace": lambda tx: tx._replace(init=tx.init),
    "extra args": optax.with_extra_args_support,
    "cloudpickle": lambda tx: pickle.loads(cloudpickle.dumps(tx)),
    "partition": lambda tx: eqx.combine(*eqx.partition(tx, eqx.is_array)),
}
PARAMS = {"w": jnp.ones((200, 128), jnp.bfloat16), "b": jnp.ones(3)}


def traced(tx):
    """How often a step calls a kernel, and how its program begins."""
    program = jax.make_jaxpr(lambda params, state: adamx.step(tx, params, state, params))(PARAMS, tx.init(PARAMS))
    return str(program).count("adamx_step"), program.out_avals


@pytest.mark.filterwarnings("ignore:optax.chain hides")
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_an_optimizer_is_a_plain_pair(make):
    tx = make()
    assert type(tx) is optax.GradientTransformationExtraArgs
    expected = traced(tx)
    of_devices = make is MAKERS["shards"]  # its mesh holds devices of this process, which nothing pickles
    for name, duplicate in COPIES.items():
        if name == "cloudpickle" and of_devices:
            continue
        again = duplicate(tx)
        assert type(again) is type(tx), name
        assert again.update is tx.update or name == "cloudpickle"
        assert traced(again) == expected, name


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_is_an_argument_of_filter_jit(make):
    seen = []

    @eqx.filter_jit
    def update(tx, state):
        seen.append(tx)
        return jax.eval_shape(tx.update, PARAMS, state, PARAMS)[0]["w"].size

    tx = make()
    state = tx.init(PARAMS)
    assert [update(tx, state), update(tx, state)] == [PARAMS["w"].size] * 2
    assert len(seen) == 1


def maximize(tx):
    """A wrapper of one's own that keeps the pass: it turns the gradients round."""

    def negated(gradients):
        return jax.tree.map(jnp.negative, gradients)

    def update(updates, state, params=None, **extra):
        return tx.update(negated(updates), state, params, **extra)

    def step(gradients, state, weights, told):
        return take_step(tx, negated(gradients), state, weights, told)

    return optax.GradientTransformationExtraArgs(tx.init, Update(update, step))


@pytest.mark.slow
def test_a_wrapper_of_ones_own_keeps_the_pass():
    tx, params = adamx.chain(adamx.clip_by_global_norm(1.0), maximize(adamx.adamw(1e-3))), {"w": jnp.ones((200, 200))}
    assert adamx.explain(tx, params).one_pass
    got = adamx.step(tx, params, tx.init(params), params)[0]["w"]
    assert float(got[0, 0]) == pytest.approx(1 + 1e-3 * (1 - 1e-4), rel=1e-6)


@pytest.mark.slow
def test_weights_of_a_wrapper_inside_a_wrapper_are_float32():
    tx, params = adamx.with_master_weights(adamx.with_stochastic_rounding(adamx.adam(0.1))), jnp.ones(300, "bfloat16")
    got, state = adamx.step(tx, params, tx.init(params), params)
    updates, expected = tx.update(params, tx.init(params), params)
    assert (got == optax.apply_updates(params, updates)).all()
    assert jax.tree.structure(state) == jax.tree.structure(expected)


@pytest.mark.slow
def test_any_transformation_steps_by_update_behind_a_factor():
    tx = adamx.chain(adamx.clip_by_global_norm(1.0), adamx.skip_nonfinite(optax.sgd(1.0)))
    got, _ = adamx.step(tx, jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)), jnp.zeros(2))
    assert got.tolist() == pytest.approx([-0.6, -0.8])


def test_weights_and_pass_are_changed_by_replace():
    half = jnp.asarray([1.0, 2.0], "bfloat16")
    assert Weights(half).wide() is half
    assert Pass(lambda work: ()).replace(factor=2.0).factor == 2.0
