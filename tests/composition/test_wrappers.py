"""The whole chain under what JAX and optax wrap around it: the bits of optax.adam under the same."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx

PARAMS = {"w": jnp.array([[1.0, -0.5], [0.25, 2.0]]), "b": jnp.array([0.125, -3.0, 1.0])}
STREAM = {
    "w": jnp.array([[[0.1, -0.3], [0.5, 0.7]], [[2.0, 0.0], [-0.1, 0.2]], [[0.3, 0.3], [0.0, -1.0]]]),
    "b": jnp.array([[0.2, 0.0, -0.4], [0.1, 0.0, 30.0], [-0.2, 0.5, 1e-4]]),
}
STEPS = range(3)
POWER_OP_BY_OP = 2e-5  # how far b2**t op by op takes the root of 1 - b2**t from the truth
SCHEDULE = optax.linear_schedule(0.1, 0.0, 9)
RATES = {"constant": 0.1, "schedule": SCHEDULE}
ONLY_W = {"w": True, "b": False}


def three_stages(learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0):
    moments, correction = adamx.scale_by_moments(b1, b2), adamx.bias_correction(eps, eps_root)
    return optax.chain(moments, correction, adamx.scale_by_lr(learning_rate))


MAKERS = {"adam": adamx.adam, "three stages": three_stages}
WRAPPERS = {
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "conditionally_mask": lambda tx: optax.conditionally_mask(tx, lambda step: step != 1),
    "conditionally_transform": lambda tx: optax.conditionally_transform(tx, lambda step: step != 1),
    "flatten": optax.flatten,
    "masked": lambda tx: optax.masked(tx, ONLY_W),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
    "named_chain": lambda tx: optax.named_chain(("clip", optax.clip_by_global_norm(1.0)), ("adam", tx)),
    "partition": lambda tx: optax.partition({"adam": tx, "none": optax.set_to_zero()}, {"w": "adam", "b": "none"}),
    "with_extra_args_support": optax.with_extra_args_support,
}
WITH_BRANCHES = ["apply_if_finite", "conditionally_transform"]
if optax.__version__ == "0.2.8":  # MultiSteps of 0.2.5 changes the type of its own sum
    WITH_BRANCHES.append("MultiSteps")


@pytest.fixture(params=MAKERS.values(), ids=MAKERS)
def make(request):
    return request.param


def gradients(t):
    return jax.tree.map(lambda stream: stream[t], STREAM)


def step_of(tx):
    def step(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params)
        return (optax.apply_updates(params, updates), state), updates

    return step


def step_by_step(tx, params=PARAMS):
    """The parameters and the updates after all steps, each step a call of one compiled function."""
    step, carry, updates = jax.jit(step_of(tx)), (params, tx.init(params)), []
    for t in STEPS:
        carry, u = step(carry, gradients(t))
        updates.append(u)
    return carry[0], jax.tree.map(lambda *us: jnp.stack(us), *updates)


def scanned(tx, params=PARAMS):
    """The same from one compiled loop, which accepts only a state whose types do not move."""
    (params, _), updates = jax.jit(lambda *carry: jax.lax.scan(step_of(tx), carry, STREAM))(params, tx.init(params))
    return params, updates


def bits(tree):
    return jax.tree.map(lambda x: (x.dtype, np.asarray(x).tobytes()), tree)


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
@pytest.mark.parametrize("drive", [step_by_step, scanned])
def test_alone(make, drive, rate):
    assert bits(drive(make(rate))) == bits(drive(optax.adam(rate)))


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_wrapped(make, wrap):
    tx = wrap(make(0.1))
    assert bits(step_by_step(tx)) == bits(step_by_step(wrap(optax.adam(0.1))))
    jax.eval_shape(lambda: scanned(tx))


def test_lookahead(make):
    pairs = optax.LookaheadParams.init_synced(PARAMS)
    ours, theirs = (step_by_step(optax.lookahead(tx, 2, 0.5), pairs) for tx in (make(0.1), optax.adam(0.1)))
    assert bits(ours) == bits(theirs)


def test_multi_steps_takes_the_average(make):
    tx = make(0.1)
    accumulated, alone = jax.jit(optax.MultiSteps(tx, 2).gradient_transformation().update), jax.jit(tx.update)
    mean = jax.tree.map(jnp.round, PARAMS)
    micro = [jax.tree.map(lambda g: g + 0.25, mean), jax.tree.map(lambda g: g - 0.25, mean)]  # exact in float32
    first, state = accumulated(micro[0], optax.MultiSteps(tx, 2).init(PARAMS), PARAMS)
    second, state = accumulated(micro[1], state, PARAMS)
    expected, inner = alone(mean, tx.init(PARAMS), PARAMS)
    assert not any(leaf.any() for leaf in jax.tree.leaves(first))
    assert bits((second, state.inner_opt_state)) == bits((expected, inner))


@pytest.mark.parametrize("wrapper", WITH_BRANCHES)
@pytest.mark.parametrize("gradient_dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_branches_agree_in_type_for_any_mix_of_types(make, dtype, gradient_dtype, wrapper):
    tx = WRAPPERS[wrapper](make(SCHEDULE))
    params, stream = optax.tree.cast(PARAMS, dtype), optax.tree.cast(STREAM, gradient_dtype)

    def step(state, g):
        updates, state = tx.update(g, state, params)
        return state, updates

    _, updates = jax.eval_shape(lambda: jax.lax.scan(step, tx.init(params), stream))
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(gradient_dtype)}


def test_vmap_over_parameters(make):
    def batched(tx):
        params, g = (jax.tree.map(lambda x: jnp.stack([x, -2.0 * x]), tree) for tree in (PARAMS, gradients(1)))
        step = jax.jit(jax.vmap(tx.update))
        _, state = step(g, jax.vmap(tx.init)(params), params)
        return step(g, state, params)

    assert bits(batched(make(0.1))[0]) == bits(batched(optax.adam(0.1))[0])


@pytest.mark.slow
def test_vmap_over_hyperparameters(make):
    values = {"learning_rate": [0.1, 0.5], "b1": [0.9, 0.0], "b2": [0.5, 0.9], "eps": [1e-8, 1.0], "eps_root": [0, 0.5]}

    def swept(make):
        columns = {name: jnp.array(column) for name, column in values.items()}
        return jax.jit(jax.vmap(lambda row: scanned(make(**row))))(columns)

    assert bits(swept(make)) == bits(swept(optax.adam))


@pytest.mark.slow
def test_gradient_through_three_steps(make):
    def outcome(learning_rate, params, make):
        tx = make(learning_rate)

        def step(carry, g):
            gradients = jax.tree.map(lambda p, g: g + jnp.sin(p), carry[0], g)
            return step_of(tx)(carry, gradients)

        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), STREAM)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))

    meta = jax.jit(jax.grad(outcome, argnums=(0, 1)), static_argnums=2)
    ours, theirs = meta(0.1, PARAMS, make), meta(0.1, PARAMS, optax.adam)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), ours, theirs)


def stages_1_and_3_injected(learning_rate, b1, b2, eps, eps_root):
    moments = optax.inject_hyperparams(adamx.scale_by_moments)(b1=b1, b2=b2)
    rate = optax.inject_hyperparams(adamx.scale_by_lr)(learning_rate=learning_rate)
    return optax.chain(moments, adamx.bias_correction(eps, eps_root), rate)


INJECTED = {
    "adam": (optax.inject_hyperparams(adamx.adam), optax.adam, {}),
    "adamw": (optax.inject_hyperparams(adamx.adamw), optax.adamw, {"weight_decay": 0.1, "mask": ONLY_W}),
    "nadam": (optax.inject_hyperparams(adamx.adam), optax.adam, {"nesterov": True}),
    "three stages": (optax.inject_hyperparams(three_stages), optax.adam, {}),
    "stages 1 and 3": (stages_1_and_3_injected, optax.adam, {}),
}


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
@pytest.mark.parametrize(("ours", "theirs", "more"), INJECTED.values(), ids=INJECTED)
def test_inject_hyperparams(ours, theirs, more, rate):
    settings = {"learning_rate": rate, "b1": 0.8, "b2": 0.99, "eps": 1e-3, "eps_root": 1e-4, **more}
    expected = step_by_step(optax.inject_hyperparams(theirs)(**settings))
    assert bits(step_by_step(ours(**settings))) == bits(expected)


def test_an_injected_rate_changes_between_two_steps():
    tx = optax.inject_hyperparams(adamx.adam)(learning_rate=0.1)
    step, state = jax.jit(tx.update), tx.init(PARAMS)
    before, _ = step(gradients(0), state, PARAMS)
    state.hyperparams["learning_rate"] = jnp.float32(0.2)
    after, _ = step(gradients(0), state, PARAMS)
    assert bits(after) == bits(jax.tree.map(lambda u: 2 * u, before))


@pytest.mark.slow
def test_without_jit(make):
    with jax.disable_jit():
        tx, peer = make(0.1), optax.adam(0.1)
        ours, theirs = tx.init(PARAMS), peer.init(PARAMS)
        for t in STEPS:
            updates, ours = tx.update(gradients(t), ours, PARAMS)
            expected, theirs = peer.update(gradients(t), theirs, PARAMS)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=POWER_OP_BY_OP), updates, expected)


@pytest.mark.parametrize("jit", [jax.jit, lambda f: f], ids=["jit", "no jit"])
def test_numpy_arrays_as_arguments(make, jit):
    tx = make(SCHEDULE)
    arguments = gradients(0), tx.init(PARAMS), PARAMS
    assert bits(jit(tx.update)(*jax.tree.map(np.asarray, arguments))) == bits(jit(tx.update)(*arguments))


@pytest.mark.slow
def test_donation_of_any_argument(make):
    tx = make(SCHEDULE)

    def step(g, state, params):
        updates, state = tx.update(g, state, params)
        return updates, state, optax.apply_updates(params, updates)

    expected = jax.jit(step)(gradients(0), tx.init(PARAMS), PARAMS)
    for donated in [(0,), (1,), (2,), (0, 1, 2)]:
        copies = jax.tree.map(jnp.copy, gradients(0)), tx.init(PARAMS), jax.tree.map(jnp.copy, PARAMS)
        assert bits(jax.jit(step, donate_argnums=donated)(*copies)) == bits(expected), donated


def test_state_from_shapes_alone(make):
    tx = make(SCHEDULE)
    state = tx.init(PARAMS)
    assert bits(tx.init(jax.eval_shape(lambda: PARAMS))) == bits(state)
    assert jax.eval_shape(tx.init, PARAMS) == jax.eval_shape(lambda: state)


def test_map_params_finds_what_is_shaped_like_the_parameters(make):
    tx, peer = make(SCHEDULE), optax.adam(SCHEDULE)

    def marked(tx):
        mapped = optax.tree.map_params(tx, lambda m: "m", tx.init(PARAMS), transform_non_params=lambda x: "count")
        return [state for state in mapped if state != optax.EmptyState()]

    assert marked(tx) == marked(peer)


def test_unknown_extra_arguments_change_nothing(make):
    tx = make(0.1)
    plain = tx.update(gradients(0), tx.init(PARAMS), PARAMS)
    assert bits(tx.update(gradients(0), tx.init(PARAMS), PARAMS, value=1.0, batch="any")) == bits(plain)
