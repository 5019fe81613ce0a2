"""Hyperparameters that change while training, or are swept: one compilation, and what float64 says."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.kernels import layout
from tests.composition.injected import (
    FIRST,
    IN_FLOAT32,
    LATER,
    PARAMS,
    SAME_FORMULA,
    accepted,
    against_float64,
    close,
    counted,
    each,
    each_adam,
    gradients,
    reference,
    with_values,
)
from tests.family import ULP, normal


@pytest.fixture
def compilations():
    """A list that grows whenever XLA compiles anything."""
    found, listening = [], True

    def listen(event, duration, **_):
        if listening and event == "/jax/core/compile/backend_compile_duration":
            found.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    listening = False


@pytest.mark.slow
@each
def test_each_changes_without_another_compilation(make, compilations):
    values, steps = accepted(make, FIRST), []
    tx = optax.inject_hyperparams(make)(**values)
    step, traces = counted(tx.update)
    _, state = step(gradients(0), tx.init(PARAMS), PARAMS)
    with_values(state, **values), gradients(0)
    compiled = len(compilations)
    assert compiled > 0
    for t, name in enumerate(values, start=1):
        values = values | {name: LATER[name]}
        before, g = with_values(state, **values), gradients(t)
        updates, state = step(g, before, PARAMS)
        steps.append((values, before.inner_state, g, (updates, state.inner_state)))
    assert (len(traces), step._cache_size(), len(compilations)) == (1, 1, compiled)
    for constants, before, g, got in steps:  # a new optimizer with constants goes on from the same state
        close(got, jax.jit(make(**constants).update)(g, before, PARAMS), SAME_FORMULA)


@each_adam
def test_changed_hyperparameters_are_right_by_float64(make):
    values, stream, settings, found = accepted(make, FIRST), [], [], []
    tx = optax.inject_hyperparams(make)(**values)
    step, state = jax.jit(tx.update), tx.init(PARAMS)
    for t in range(24):
        values = values | {name: LATER[name] for i, name in enumerate(values) if t >= 3 * (i + 1)}
        updates, state = step(gradients(t), with_values(state, **values), PARAMS)
        for collected, value in ((stream, gradients(t)), (settings, values), (found, updates)):
            collected.append(value)
    for name, theta in PARAMS.items():
        expected = reference([g[name] for g in stream], settings, theta)
        close([u[name] for u in found], expected, against_float64(LATER["b2"]))


def test_a_step_in_one_pass_takes_them_as_arguments(compilations, monkeypatch):
    monkeypatch.setattr(layout, "MANY", 0)  # the kernel takes this leaf, however small
    values, params = accepted(adamx.adamw, FIRST), normal(3, 4096)

    def one_pass(values, g, state, params):
        return adamx.step(adamx.adamw(**values), g, state, params)

    step, traces = counted(one_pass)
    arrays = {name: jnp.float32(value) for name, value in values.items()}
    g, state = normal(4, 4096), adamx.adamw(**values).init(params)
    if adamx.kernels.backend().name == "native":
        assert "adamx_step" in step.lower(arrays, g, state, params).compile().as_text()
    step(arrays, g, state, params)
    compiled = len(compilations)
    for name in values:
        arrays = arrays | {name: jnp.float32(LATER[name])}
        got = step(arrays, g, state, params)
    assert (len(traces), step._cache_size(), len(compilations)) == (1, 1, compiled)
    (update,) = reference([g], [accepted(adamx.adamw, LATER)], params)
    close(got[0], np.asarray(params, np.float64) + update, against_float64(LATER["b2"]), scale=4.0)


@each
def test_python_floats_cost_one_more_compilation_and_no_more(make):
    tx = optax.inject_hyperparams(make)(0.5)
    step, traces = counted(tx.update)
    _, state = step(gradients(0), tx.init(PARAMS), PARAMS)
    for rate in (0.25, 0.125, 1.0):
        state.hyperparams["learning_rate"] = rate
        _, state = step(gradients(0), state, PARAMS)
    assert len(traces) == 2


SCHEDULES = {
    "learning_rate": optax.cosine_decay_schedule(0.5, 30),
    "b1": optax.linear_schedule(0.5, 0.9375, 20),
    "b2": optax.exponential_decay(0.75, 10, 1.02),
    "eps": optax.linear_schedule(1.0, 0.0, 20),
    "eps_root": optax.piecewise_constant_schedule(0.25, {7: 0.5}),
    "weight_decay": optax.warmup_cosine_decay_schedule(0.0, 0.5, 5, 20),
}


@pytest.mark.slow
@each_adam
@pytest.mark.parametrize("scanned", [False, True], ids=["step by step", "scan"])
def test_scheduled_hyperparameters_are_right_by_float64(make, scanned):
    tx = optax.inject_hyperparams(make)(**accepted(make, SCHEDULES))
    steps = range(20)
    stream = jax.tree.map(lambda *g: jnp.stack(g), *map(gradients, steps))

    def one(state, g):
        updates, state = tx.update(g, state, PARAMS)
        return state, (updates, state.hyperparams)

    step, traces = counted(one if not scanned else functools.partial(jax.lax.scan, one))
    if scanned:
        _, (updates, used) = step(tx.init(PARAMS), stream)
    else:
        state, rows = tx.init(PARAMS), []
        for t in steps:
            state, row = step(state, gradients(t))
            rows.append(row)
        updates, used = jax.tree.map(lambda *x: jnp.stack(x), *rows)
        assert len(traces) == 1
    settings = [{name: column[t] for name, column in used.items()} for t in steps]
    for name, schedule in accepted(make, SCHEDULES).items():
        np.testing.assert_allclose(used[name], [schedule(t) for t in steps], rtol=8 * ULP, atol=8 * ULP)
    for name, theta in PARAMS.items():
        close(list(updates[name]), reference(stream[name], settings, theta), against_float64(0.78))


class Patience(optax.schedules.StatefulSchedule):
    """A rate that halves whenever the loss does not fall, from 1; its state is the rate and the least loss so far."""

    def init(self):
        return jnp.float32(1.0), jnp.float32(jnp.inf)

    def __call__(self, state, *, value=jnp.inf, **_):
        rate, least = state
        return jnp.where((value < least) | ~jnp.isfinite(least), rate, rate / 2)

    def update(self, state, *, value, **_):
        return self(state, value=value), jnp.minimum(state[1], value)


def stateful(factory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the older name of the same
        return optax.inject_stateful_hyperparams(factory)


@pytest.mark.slow
@each
@pytest.mark.parametrize("inject", [optax.inject_hyperparams, stateful])
def test_a_schedule_that_looks_at_the_loss(make, inject):
    tx, plain = inject(make)(Patience()), make(1.0)
    losses, rates = [4.0, 3.0, 3.5, 2.0, 2.0, 1.0], [1, 1, 0.5, 0.5, 0.25, 0.25]
    step, traces = counted(lambda g, state, loss: tx.update(g, state, PARAMS, value=loss))
    alone, state, other = jax.jit(plain.update), tx.init(PARAMS), plain.init(PARAMS)
    first = jax.tree.map(jax.typeof, state)
    for t, (loss, rate) in enumerate(zip(losses, rates, strict=True)):
        updates, state = step(gradients(t), state, jnp.float32(loss))
        expected, other = alone(gradients(t), other, PARAMS)
        close(updates, jax.tree.map(lambda u, rate=rate: rate * u, expected), IN_FLOAT32)
        assert jax.tree.map(jax.typeof, state) == first
    assert len(traces) == 1


@pytest.mark.slow
@each
def test_swept_by_vmap(make, compilations):
    rows = [accepted(make, row) for row in (FIRST, LATER, {**FIRST, "b2": LATER["b2"]}, {**LATER, "b1": 0.0})]
    tx = optax.inject_hyperparams(make)(**rows[0])
    step, traces = counted(jax.vmap(tx.update, in_axes=(0, 0, None)))
    same = [jax.tree.map(lambda g: jnp.stack([g] * len(rows)), gradients(t)) for t in range(4)]

    def columns_of(rows):
        return {name: jnp.asarray([row[name] for row in rows], jnp.float32) for name in rows[0]}

    def swept(columns):
        state, found = jax.vmap(lambda row: with_values(tx.init(PARAMS), **row))(columns), []
        for g in same:
            updates, state = step(g, state, PARAMS)
            found.append(updates)
        return found

    swept(columns_of(rows))
    compiled = len(compilations)
    rows = rows[::-1]
    found = swept(columns_of(rows))
    assert (len(traces), step._cache_size(), len(compilations)) == (1, 1, compiled)
    for i, row in enumerate(rows):
        plain = make(**row)
        alone, state = jax.jit(plain.update), plain.init(PARAMS)
        for t, updates in enumerate(found):
            expected, state = alone(gradients(t), state, PARAMS)
            close(jax.tree.map(lambda u, i=i: u[i], updates), expected, SAME_FORMULA)
