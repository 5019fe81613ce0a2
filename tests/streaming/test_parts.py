import jax
import jax.numpy as jnp
import optax
import pytest

import adamx
from adamx.core.step import Pass, Update, Weights, take_step
from adamx.core.work import by_xla
from adamx.streaming.parts import in_parts
from adamx.streaming.pieces import Inputs

SHAPES = {"a": (64, 64), "b": (3,)}
PARAMS = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in SHAPES.items()}
HALF = {name: jax.ShapeDtypeStruct(shape, jnp.bfloat16) for name, shape in SHAPES.items()}


def parts_of(tx, params=PARAMS, execute=by_xla):
    def take(gradients, params, state, extra, execute, branch):
        weights, after = take_step(tx, gradients, state, Weights(params), Pass(execute, extra, branch=branch))
        return weights.params, after

    return in_parts(take, Inputs(*[(params, params, jax.eval_shape(tx.init, params), {})] * 2), execute, False)


def clipped(tx):
    return adamx.chain(adamx.clip_by_global_norm(1.0), tx)


SCHEDULE = optax.linear_schedule(0.1, 0.0, 10)
STATE = 4  # where the state begins among gradients, parameters and state
NEEDS = {  # the inputs that the numbers of a step follow from, and how many conditions there are
    "adam": (adamx.adam(0.1), PARAMS, [STATE], 0),
    "a schedule": (adamx.adamw(SCHEDULE), PARAMS, [STATE, STATE + 5], 0),
    "clipped": (clipped(adamx.adam(0.1)), PARAMS, [0, 1, STATE], 0),
    "guarded": (adamx.skip_nonfinite(adamx.adam(0.1)), PARAMS, [0, 1, STATE, *range(STATE + 5, STATE + 7)], 1),
    "two guards": (
        adamx.skip_nonfinite(clipped(adamx.skip_nonfinite(adamx.adam(0.1)))),
        PARAMS,
        [0, 1, STATE, *(STATE + i for i in (5, 6, 8, 9))],
        2,
    ),
    "masters": (adamx.with_master_weights(adamx.adam(0.1)), HALF, [STATE], 0),
    "stochastic": (adamx.with_stochastic_rounding(adamx.adam(0.1)), HALF, [STATE, STATE + 5], 0),
}


@pytest.mark.parametrize("name", NEEDS)
def test_what_the_numbers_follow_from(name):
    tx, params, needed, conditions = NEEDS[name]
    parts = parts_of(tx, params)
    assert (parts.needed, parts.conditions) == (needed, conditions)
    assert parts.beside == [i for i in needed if i < 2]
    kinds = [source.kind for source in parts.results]
    assert kinds[:2] == ["stepped"] * 2
    assert kinds.count("stepped") == sum(len(group.changed) for group in parts.groups)
    assert kinds.count("number") == len(needed) - len(parts.beside)


@pytest.mark.skipif(jax.__version_info__ < (0, 7), reason="XLA of jax 0.6 writes squares or magnitudes to memory")
def test_numbers_take_no_memory_of_the_size_of_a_leaf():
    parts = parts_of(adamx.skip_nonfinite(clipped(adamx.adam(0.1))))
    given = [*PARAMS.values(), jnp.int32(0), jnp.int32(0), jnp.int32(0)]
    memory = parts.numbers.lower(given).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 64 * 64
    assert memory.output_size_in_bytes < 1024


def by_loop(tx):
    """A wrapper whose step runs inside a branch."""

    def step(gradients, state, weights, told):
        return jax.lax.cond(True, lambda: take_step(tx, gradients, state, weights, told), lambda: (weights, state))

    return tx._replace(update=Update(tx.update, step))


def in_state(transform):
    """A wrapper that does something to the state of a step, or to its weights."""

    def wrap(tx):
        def step(gradients, state, weights, told):
            return transform(*take_step(tx, gradients, state, weights, told))

        return tx._replace(update=Update(tx.update, step))

    return wrap


WHOLE = {
    "no step": optax.adam(0.1),
    "another paper": adamx.amsgrad(0.1),
    "gradients are changed first": adamx.chain(optax.clip(0.5), adamx.adam(0.1)),
    "decay behind a guard": adamx.chain(
        adamx.skip_nonfinite(adamx.scale_by_adam()), adamx.add_decayed_weights(0.5), adamx.scale_by_lr(0.5)
    ),
    "inside a branch": by_loop(adamx.adam(0.1)),
    "parameters are changed behind": in_state(lambda w, s: (w.replace(params=jax.tree.map(jnp.abs, w.params)), s))(
        adamx.adam(0.1)
    ),
    "the state follows from what has stepped": in_state(
        lambda w, s: (w, (s[0]._replace(mu=jax.tree.map(jnp.abs, s[0].mu)), *s[1:]))
    )(adamx.adam(0.1)),
    "a callback": in_state(lambda w, s: (jax.debug.callback(lambda: None), (w, s))[1])(adamx.adam(0.1)),
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_taken_as_a_whole(name):
    assert parts_of(WHOLE[name]) is None


def large(elements):
    """Clipping whose factor follows from an array of its state."""

    def factor(gradients, state, so_far):
        return jnp.sum(state) + jnp.sum(gradients["b"]), state

    tx = optax.GradientTransformationExtraArgs(
        lambda _: jnp.ones(elements), Update(lambda u, s, p=None, **_: (u, s), factor=factor)
    )
    return adamx.chain(tx, adamx.adam(0.1))


def test_large_arrays_of_the_state_do_not_go_to_the_gradients():
    assert parts_of(large(1023)).results[2] == ("input", STATE)
    assert parts_of(large(1024)) is None
