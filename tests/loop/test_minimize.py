import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.storage import Int8

REASON = adamx.loop.StopReason


def rosenbrock(p):
    return jnp.sum(100 * (p["y"] - p["x"] ** 2) ** 2 + (1 - p["x"]) ** 2)


def params(n=5):
    return {"x": jnp.linspace(-1.5, 0.5, n), "y": jnp.linspace(1.0, 2.0, n)}


def by_hand(fun, p, tx, steps):
    """The training step that a user writes, jitted."""

    @jax.jit
    def step(p, state):
        value, g = jax.value_and_grad(fun)(p)
        return *adamx.step(tx, g, state, p, value=value, grad=g, value_fn=fun), value

    state, values = tx.init(p), []
    for _ in range(steps):
        p, state, value = step(p, state)
        values.append(value)
    return p, state, np.asarray(values)


NEW = jax.__version_info__ > (0, 10, 99)
"""XLA joins a gradient with the step behind it in other loops where a loop of minimize is around them, and contracts
otherwise: a step by hand has the bits of minimize with jax 0.10 and older."""


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


OPTIMIZERS = {
    "adam": adamx.adam(0.05),
    "fused, int8, scheduled": adamx.adamw(
        optax.cosine_decay_schedule(0.05, 30), mu_dtype=Int8(min_size=4096), nu_dtype=Int8(min_size=4096)
    ),
    "guarded": adamx.skip_nonfinite(adamx.adam(0.05)),
    "line search": optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(10)),
    "every third": optax.MultiSteps(adamx.adam(0.05), 3),
}


@pytest.mark.parametrize("n", [1, 2, 3])
def test_both_loops_have_equal_bits_for_the_smallest_arrays(n):
    # Their loops are unrolled, and what stands beside a step decides how it is contracted.
    tx, x = adamx.adam(0.1), jnp.linspace(-2.0, 1.0, n)
    on_device = adamx.minimize(lambda x: jnp.sum(x**2), x, tx, max_steps=60)
    in_python = adamx.minimize(lambda x, b: jnp.sum(x**2), x, tx, max_steps=60, batches=range(60))
    if jax.__version_info__ < (0, 7):  # where the last step may be contracted otherwise, now and then
        np.testing.assert_allclose(on_device.params, in_python.params, rtol=1e-6)
    else:
        equal(on_device, in_python)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_both_loops_have_the_bits_of_a_step_by_hand(name):
    tx, p = OPTIMIZERS[name], params(600)
    on_device = adamx.minimize(rosenbrock, p, tx, max_steps=12)
    in_python = adamx.minimize(lambda p, b: rosenbrock(p), p, tx, max_steps=12, batches=np.zeros((12, 1)))
    equal(on_device, in_python)
    *expected, values = by_hand(rosenbrock, p, tx, 12)
    if NEW:
        np.testing.assert_allclose(on_device.history, values, rtol=1e-5)
    else:
        equal(on_device[:2], tuple(expected))
        equal(on_device.history, values)
    assert (on_device.steps, on_device.stopped, on_device.history.shape) == (12, REASON.MAX_STEPS, (12,))


@pytest.mark.slow
def test_converges_where_the_first_change_below_atol_is():
    tx, p, fun = adamx.adam(optax.exponential_decay(0.5, 10, 0.5)), jnp.array([1.0, -2.0]), lambda x: jnp.sum(x**2)
    path = [p]
    adamx.minimize(fun, p, tx, max_steps=100, atol=1e-30, callback=lambda at: path.append(at.params))
    assert len(path) == 101
    changes = [float(np.max(np.abs(b - a))) for a, b in itertools.pairwise(path)]
    expected = next(t for t, change in enumerate(changes, start=1) if change < 1e-2)
    for more in ({}, {"callback": lambda at: None}):
        found = adamx.minimize(fun, p, tx, max_steps=100, atol=1e-2, **more)
        assert (found.stopped, found.steps, len(found.history)) == (REASON.CONVERGED, expected, expected)
        # Another constant atol is another program: on jax 0.6 the bits of two elements may differ by a unit a step.
        np.testing.assert_allclose(found.params, path[expected], rtol=0, atol=expected * 2**-23)
    assert adamx.minimize(fun, p, tx, max_steps=100, atol=None).stopped == REASON.MAX_STEPS


@pytest.mark.parametrize("way", ["device", "callback", "batches"])
def test_an_objective_that_is_not_finite_ends_the_run_before_its_step(way):
    # x falls by 1/x each step, and the logarithm of what is below 0 is NaN.
    fun, tx, p = (lambda x, *_: jnp.log(x)), optax.chain(optax.trace(0.5), optax.scale(-0.5)), jnp.float32(1.6)
    more = {"device": {}, "callback": {"callback": lambda at: None}, "batches": {"batches": range(99)}}[way]
    found = adamx.minimize(lambda x, *b: (fun(x), {"at": x}), p, tx, max_steps=99, has_aux=True, **more)
    assert found.stopped == REASON.NONFINITE
    before = by_hand(fun, p, tx, found.steps)
    assert 1 < found.steps < 99
    equal(found[:2], before[:2])
    equal(found.history, before[2])
    assert found.params < 0
    assert np.isnan(by_hand(fun, p, tx, found.steps + 1)[2][-1])
    assert found.aux["at"] == found.params


def test_nothing_is_traced_again_from_step_to_step():
    traced = []

    def fun(x, batch):
        traced.append(batch.shape)
        return jnp.sum((x - batch) ** 2)

    p, tx = jnp.zeros(3), adamx.adam(0.1)
    adamx.minimize(lambda x: fun(x, jnp.ones(3)), p, tx, max_steps=2)
    few, _ = len(traced), traced.clear()
    adamx.minimize(lambda x: fun(x, jnp.ones(3)), p, tx, max_steps=50)
    assert len(traced) == few
    traced.clear()
    adamx.minimize(fun, p, tx, max_steps=50, batches=[jnp.ones(3)] * 20 + [jnp.ones(1)] * 20)
    assert len(traced) == 2 * few


@pytest.mark.slow
def test_under_jit_and_vmap_it_is_the_same_loop():
    tx, fun, p = adamx.adam(0.1), lambda x: jnp.sum((x - 1) ** 2), jnp.zeros((2, 3))

    def run(x):
        return adamx.minimize(fun, x, tx, max_steps=30, atol=0.09)

    alone, jitted = run(p[0]), jax.jit(run)(p[0])
    assert 1 < alone.steps < 30
    equal(jitted[:2], alone[:2])
    assert (int(jitted.steps), REASON(int(jitted.stopped))) == (alone.steps, REASON.CONVERGED)
    assert jitted.history.shape == (30,)
    np.testing.assert_array_equal(jitted.history[: alone.steps], alone.history)
    assert np.isnan(jitted.history[alone.steps :]).all()
    many = jax.vmap(run)(p)
    np.testing.assert_array_equal(many.steps, [alone.steps] * 2)
    np.testing.assert_allclose(many.params[1], alone.params, rtol=1e-6)


def test_a_traced_atol():
    found = jax.jit(lambda atol: adamx.minimize(lambda x: x, jnp.ones([]), optax.sgd(0.5), max_steps=3, atol=atol))
    assert [int(found(atol).steps) for atol in (0.5, 0.6)] == [3, 1]


@pytest.mark.parametrize("more", [{"batches": [1, 2]}, {"callback": print}, {"progress": True}])
@pytest.mark.parametrize("transform", [jax.jit, jax.vmap])
def test_python_does_not_loop_while_jax_traces(transform, more):
    def run(x):
        return adamx.minimize(lambda x, *_: x**2, x, optax.sgd(0.1), max_steps=2, **more).params

    with pytest.raises(TypeError, match="batches, callback and progress only outside jit and vmap"):
        transform(run)(jnp.ones(1))


def test_complex_parameters_go_downhill():
    goal = jnp.array([1 + 2j, -3j])
    found = adamx.minimize(
        lambda z: jnp.sum(jnp.abs(z - goal) ** 2), jnp.zeros(2, complex), optax.sgd(0.5), max_steps=1
    )
    np.testing.assert_array_equal(found.params, goal)


@pytest.mark.parametrize("p", [1.0, {"a": jnp.ones(3, jnp.bfloat16), "b": None}, [np.ones(2, np.float32), 2.0]])
def test_types_stay_and_what_came_is_not_written_to(p):
    before = jax.tree.map(lambda x: np.array(x, copy=True), p)
    tx = adamx.with_stochastic_rounding(adamx.adam(0.1)) if isinstance(p, dict) else adamx.adam(0.1)

    def fun(p):
        return sum(jnp.sum(x.astype(jnp.float32) ** 2) for x in map(jnp.asarray, jax.tree.leaves(p)))

    found = adamx.minimize(fun, p, tx, max_steps=20)
    equal(p, before)
    assert jax.tree.map(jnp.result_type, found.params) == jax.tree.map(jnp.result_type, p)
    assert fun(found.params) < 0.2 * fun(p)


def test_float64(x64):
    found = adamx.minimize(lambda x: jnp.sum((x - 1) ** 2), jnp.zeros(2), optax.sgd(0.5), max_steps=9, atol=1e-13)
    assert (found.history.dtype, found.params.dtype, found.stopped) == (np.float64, jnp.float64, REASON.CONVERGED)
    np.testing.assert_array_equal(found.params, [1.0, 1.0])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_steps": 0}, ValueError, "max_steps must be at least 1, got 0"),
        ({"max_steps": 2.5}, TypeError, r"max_steps must be an integer, got 2\.5"),
        ({"max_steps": True}, TypeError, "max_steps must be an integer, got True"),
        ({"atol": -1.0}, ValueError, r"atol must be a finite number of at least 0, got -1\.0"),
        ({"atol": "small"}, TypeError, "atol must be a real number, got 'small'"),
        ({"batches": 3}, TypeError, r"batches must be an iterable of batches, got int: .* itertools\.repeat\(batch\)"),
        ({"batches": {"x": 1}}, TypeError, "batches must be an iterable of batches, got dict"),
        ({"batches": jnp.ones([])}, TypeError, "batches must be an iterable of batches, got ArrayImpl"),
        ({"has_aux": "yes"}, TypeError, "has_aux must be True or False, got 'yes'"),
        ({"progress": 1}, TypeError, "progress must be True or False, got 1"),
        ({"callback": 1}, TypeError, "callback must take a MinimizeStep, got 1 of type int"),
        ({"fun": lambda x: x}, TypeError, r"fun must return a real floating scalar, got float32 of shape \(2,\)"),
        ({"fun": None}, TypeError, "fun must be a function of the parameters, got None"),
        ({"params": {"n": 1}}, TypeError, "the parameter at n must be an array"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    given = {"fun": jnp.sum, "params": jnp.ones(2), "tx": optax.sgd(0.1), "max_steps": 1} | arguments
    with pytest.raises(error, match=message):
        adamx.minimize(**given)
