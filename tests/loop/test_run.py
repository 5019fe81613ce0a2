import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from adamx.loop.objective import checked
from adamx.loop.outcome import StopReason
from adamx.loop.run import GOING_ON, At, runner


def bowl(p):
    return jnp.sum(p["a"] ** 2) + jnp.sum((p["b"] - 1) ** 2)


PARAMS = {"a": jnp.linspace(-1, 1, 7), "b": jnp.zeros((2, 3))}


def start(tx, params=PARAMS):
    return At(params, tx.init(params), jnp.int32(0), jnp.int32(GOING_ON))


@pytest.mark.slow
def test_runs_to_the_limit_and_goes_on_from_there_with_the_same_bits():
    tx = adamx.adam(0.1)
    run = jax.jit(runner(checked(bowl, False), tx, 0.0), static_argnames="length")
    whole, value, aux, history = run(start(tx), 10, length=10)
    half, *_, first = run(start(tx), 4, length=4)
    rest, *_, second = run(half, 10, length=6)
    assert (int(half.steps), int(rest.steps), int(whole.stopped), aux) == (4, 10, GOING_ON, None)
    jax.tree.map(np.testing.assert_array_equal, rest, whole)
    np.testing.assert_array_equal(np.concatenate([first, second]), history)
    assert value == history[-1]


def test_a_run_that_has_stopped_takes_no_step():
    tx = adamx.adam(0.1)
    stopped = start(tx)._replace(stopped=jnp.int32(StopReason.CONVERGED))
    after, *_ = runner(checked(bowl, False), tx, 0.0)(stopped, 5, length=5)
    jax.tree.map(np.testing.assert_array_equal, after, stopped)


@pytest.mark.parametrize(
    ("dtype", "atol", "stopped"),
    [
        ("float32", 0.5, GOING_ON),
        ("float32", 0.501, StopReason.CONVERGED),
        ("float32", 0.0, GOING_ON),
        ("bfloat16", 0.501, StopReason.CONVERGED),
        ("complex64", 0.5, GOING_ON),
    ],
)
def test_converged_is_a_change_below_atol(dtype, atol, stopped):
    # A gradient of ones at the rate 1/2 moves every element by exactly 0.5, in every dtype and in each step.
    params = {"z": jnp.zeros(3, dtype), "none": None, "empty": jnp.zeros((0, 2))}
    tx = adamx.join(adamx.scale_by_lr(0.5))
    run = runner(checked(lambda p: jnp.sum(p["z"].real).astype(jnp.float32), False), tx, atol)
    after, *_ = run(start(tx, params), 3, length=3)
    assert int(after.stopped) == stopped
    assert int(after.steps) == (3 if stopped == GOING_ON else 1)


def test_the_element_that_moves_most_decides():
    tx = adamx.scale_by_lr(1.0)
    params = {"a": jnp.zeros(4), "b": jnp.zeros(4)}
    run = runner(
        checked(lambda p: 1e-3 * jnp.sum(p["a"]) + jnp.sum(p["b"] * jnp.array([0, 0, 1.0, 0])), False), tx, 0.5
    )
    assert int(run(start(tx, params), 2, length=2)[0].stopped) == GOING_ON


def test_without_parameters_nothing_moves():
    tx = adamx.adam(1.0)
    after, *_ = runner(checked(lambda p: jnp.float32(1.0), False), tx, 1e-3)(start(tx, {}), 5, length=5)
    assert (int(after.stopped), int(after.steps)) == (StopReason.CONVERGED, 1)


def test_a_gradient_that_is_not_finite_is_no_convergence():
    # The slope of the root is infinite at 0; the guard skips the step, and nothing moves.
    tx = adamx.skip_nonfinite(adamx.adam(0.1))
    params = {"x": jnp.zeros(2)}
    after, *_ = runner(checked(lambda p: jnp.sum(jnp.sqrt(p["x"])), False), tx, 1e-3)(start(tx, params), 4, length=4)
    assert (int(after.stopped), int(after.steps), int(after.state.skipped)) == (GOING_ON, 4, 4)


def test_a_step_to_a_parameter_that_is_not_finite_is_not_taken():
    tx = adamx.scale_by_lr(2.0**100)
    params = {"x": jnp.array([2.0, 2.0**33])}
    after, value, _, history = runner(checked(lambda p: jnp.sum(p["x"] ** 2 / 2), False), tx, 0.0)(
        start(tx, params), 4, length=4
    )
    np.testing.assert_array_equal(after.params["x"], params["x"])
    assert (int(after.stopped), int(after.steps)) == (StopReason.NONFINITE, 0)
    assert float(value) == 2.0**65
    assert history.shape == (4,)
