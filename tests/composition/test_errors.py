"""Errors that tell what to use instead, by their text; where they name a remedy, it works."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx

PARAMS = {"norm": jnp.ones(2), "w": jnp.ones((2, 3))}
SCHEDULE = optax.constant_schedule(0.1)
WITHOUT_DECAY = {
    "adam": "adamx.adamw",
    "adamax": "adamx.adamaxw",
    "adam_atan2": "adamx.adamw_atan2",
    "amsgrad": "adamx.add_decayed_weights",
    "radam": "adamx.add_decayed_weights",
    "adabelief": "adamx.add_decayed_weights",
    "adopt": "adamx.add_decayed_weights",
}
ELSEWHERE = {
    "amsgrad": "adamx.amsgrad",
    "maximize": "optax.scale(-1.0)",
    "foreach": "leave it out",
    "capturable": "leave it out",
    "jit_compile": "leave it out",
    "differentiable": "leave it out",
    "fused": "adamx.step",
    "params": "tx.init(params)",
    "clipvalue": "optax.clip(value)",
    "clipnorm": "optax.clip_by_block_rms",
    "global_clipnorm": "optax.clip_by_global_norm(norm)",
    "use_ema": "adamx.with_ema",
    "ema_momentum": "adamx.with_ema",
    "gradient_accumulation_steps": "adamx.accumulate",
    "loss_scale_factor": "optax.scale(1 / factor)",
    "decoupled_weight_decay": "adamx.adamw",
    "momentum_decay": "adamx.inject_hyperparams(adamx.nadam)",
}


def updated(tx, state, params=PARAMS, gradients=PARAMS):
    return tx.update(gradients, state, params)


@pytest.mark.parametrize(("name", "words"), WITHOUT_DECAY.items())
@pytest.mark.parametrize("given", ["weight_decay", "wd"])
def test_an_optimizer_without_weight_decay_names_the_one_that_has_it(name, words, given):
    with pytest.raises(TypeError, match=rf"^{name}\(\) has no argument '{given}': .*{words}\b"):
        getattr(adamx, name)(1e-3, **{given: 0.1})
    assert hasattr(adamx, words.removeprefix("adamx."))


@pytest.mark.parametrize(("given", "words"), ELSEWHERE.items())
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_an_argument_of_torch_or_keras_is_told_what_to_use(name, given, words):
    with pytest.raises(TypeError) as caught:
        getattr(adamx, name)(1e-3, **{given: True})
    assert str(caught.value).startswith(f"{name}() has no argument '{given}': ")
    assert words in str(caught.value)


@pytest.mark.parametrize("make", [adamx.adamw, adamx.nadamw, adamx.stable_adamw])
@pytest.mark.parametrize(
    "mask",
    [
        adamx.not_matching("norm"),
        adamx.match("w"),
        lambda p: jax.tree.map(lambda x: x.ndim > 1, p),
        lambda p: jax.tree.map(lambda x: x.ndim != 1, p),
        lambda p: jax.tree.map(lambda x: x > 0, p),
    ],
    ids=["not_matching", "match", "False", "True", "array"],
)
def test_a_mask_taken_for_a_schedule_is_told_to_be_static(make, mask):
    tx = optax.inject_hyperparams(make)(1e-3, mask=mask)
    with pytest.raises((TypeError, ValueError), match=r'static_args="mask"'):
        updated(tx, tx.init(PARAMS))


@pytest.mark.slow
@pytest.mark.parametrize("make", [adamx.adamw])
def test_the_static_mask_works(make):
    tx = optax.inject_hyperparams(make, static_args="mask")(1e-3, mask=adamx.not_matching("norm"))
    updated(tx, tx.init(PARAMS))


def test_factors_by_path_are_no_schedule():
    tx = optax.inject_hyperparams(adamx.scale_by_path)({"norm": 0.5})
    np.testing.assert_array_equal(updated(tx, tx.init(PARAMS))[0]["norm"], 0.5)


def gone_on(old, new):
    """The state of one optimizer after a step, in another one."""
    _, state = updated(old, old.init(PARAMS))
    return new, state


adamw = adamx.adamw
CHANGED = {
    "schedule of the rate added": (
        adamx.adam(0.1),
        adamx.adam(SCHEDULE),
        "learning_rate was a number",
        "optax.tree.set",
    ),
    "dropped": (adamx.adam(SCHEDULE), adamx.adam(0.1), "learning_rate was a schedule", "optax.constant_schedule"),
    "schedule of the decay added": (
        adamw(0.1, weight_decay=0.1),
        adamw(0.1, weight_decay=SCHEDULE),
        "weight_decay was a number",
        "optax.tree.set",
    ),
    "decay dropped": (
        adamw(0.1, weight_decay=SCHEDULE),
        adamw(0.1, weight_decay=0.1),
        "weight_decay was a schedule",
        "optax.constant_schedule",
    ),
    "mask added": (adamw(0.1), adamw(0.1, mask={"norm": False, "w": True}), "a mask was added", "optax.MaskedState("),
    "mask of a schedule dropped": (
        adamw(0.1, weight_decay=SCHEDULE, mask={"norm": False, "w": True}),
        adamw(0.1, weight_decay=SCHEDULE),
        "there was a mask",
        "inner_state",
    ),
}


@pytest.mark.parametrize(("old", "new", "what", "remedy"), CHANGED.values(), ids=CHANGED)
def test_a_schedule_or_mask_that_was_added_or_dropped_is_told_how_to_go_on(old, new, what, remedy):
    tx, state = gone_on(old, new)
    for step in (tx.update, lambda *a: adamx.step(tx, *a)):
        with pytest.raises(TypeError) as caught:
            step(PARAMS, state, PARAMS)
        assert what in str(caught.value)
        assert remedy in str(caught.value)


def test_the_ways_to_go_on_work():
    with_rate = gone_on(adamx.adam(0.1), adamx.adam(SCHEDULE))
    tx, state = with_rate
    state = (state[0], optax.tree_utils.tree_set(tx.init(PARAMS)[1], count=state[0].count))
    assert int(updated(tx, state)[1][1].count) == 2
    _, state = gone_on(adamx.adam(SCHEDULE), None)
    updated(adamx.adam(optax.constant_schedule(0.1)), state)
    updated(adamx.adam(0.1), (state[0], optax.EmptyState()))
    tx, state = gone_on(adamw(0.1), adamw(0.1, mask={"norm": False, "w": True}))
    updated(tx, (state[0], optax.MaskedState(inner_state=state[1]), state[2]))


@pytest.mark.parametrize("make", [adamx.adam, adamx.adopt, adamx.mars, adamx.ademamix, adamx.amsgrad])
def test_a_grown_leaf_says_which_shape_is_the_state_s(make):
    tx, grown = make(0.1), {**PARAMS, "w": jnp.ones((4, 3))}
    state = tx.init(PARAMS)
    words = r"at w has shape \(4, 3\), the state was made for a parameter of shape \(2, 3\).*tx\.init\(params\)"
    for step in (tx.update, lambda *a: adamx.step(tx, *a)):
        with pytest.raises(ValueError, match=words):
            step(grown, state, grown)
        with pytest.raises(ValueError, match="unexpected more"):
            step({**PARAMS, "more": jnp.ones(1)}, state, {**PARAMS, "more": jnp.ones(1)})


def test_float0_gradients_name_a_remedy_that_works():
    params, tx = {"n": jnp.arange(2), "w": jnp.ones(2)}, adamx.adam(0.5)
    gradients = jax.grad(lambda p: jnp.sum(p["w"] ** 2), allow_int=True)(params)
    with pytest.raises(TypeError, match=r"at n .*float0.*jnp\.zeros_like\(parameter\).*adamx\.route"):
        updated(tx, tx.init(params), params, gradients)

    zeros = jax.tree.map(lambda p, g: jnp.zeros_like(p) if g.dtype == jax.dtypes.float0 else g, params, gradients)
    tx = adamx.route({"^n$": None}, default=tx)
    moved, _ = adamx.step(tx, zeros, tx.init(params), params)
    np.testing.assert_allclose(moved["w"], 0.5, rtol=1e-4)
    np.testing.assert_array_equal(moved["n"], params["n"])


def first_moments():
    stage = adamx.scale_by_moments()
    return stage.update(PARAMS, stage.init(PARAMS))[0]


MU = first_moments().mu
WRONG = {
    "shape": (
        {"mu": {**MU, "norm": jnp.ones(3)}},
        ValueError,
        r"the new mu at norm has shape \(3,\), its old mu .*\(2,\)",
    ),
    "structure": ({"mu": {"w": MU["w"]}}, ValueError, "the new mu tree .* missing norm"),
    "bare": ({"mu": jnp.ones(2)}, ValueError, "new mu tree does not have the structure of the old mu tree"),
    "integers": ({"mu": {**MU, "norm": jnp.ones(2, int)}}, TypeError, "the new mu at norm must be .* got dtype int32"),
    "half": (
        {"mu": {**MU, "norm": jnp.ones(2, jnp.bfloat16)}},
        TypeError,
        "norm has dtype bfloat16, the old .*float32",
    ),
    "complex nu": ({"nu": {**MU, "w": 1j * MU["w"]}, "nu_weight": 1.0}, TypeError, "new nu at w is complex64.*real"),
    "gradients": ({"gradients": {**MU, "w": jnp.ones(2)}}, ValueError, "the new gradients at w has shape"),
    "no weight": ({"nu": MU}, ValueError, r"v_hat=\.\.\. if it is, .*nu_weight=moments\.nu_weight if it is an average"),
    "unknown": ({"m": MU}, TypeError, "no field 'm'"),
}


@pytest.mark.parametrize(("changes", "error", "words"), WRONG.values(), ids=WRONG)
def test_a_stage_that_answers_with_other_trees_is_told_which_leaf(changes, error, words):
    with pytest.raises(error, match=words):
        first_moments().replace(**changes)


def test_a_stage_that_names_the_weight_of_its_v_may_change_it():
    moments = first_moments()
    for weight in (1.0, moments.nu_weight):
        assert moments.replace(nu=MU, nu_weight=weight).nu_weight is weight


def test_a_stage_of_optax_that_changes_the_shape_of_m_is_named():
    halved = optax.stateless(lambda u, p: jax.tree.map(lambda x: x[:1], u))
    tx = optax.chain(adamx.scale_by_moments(), adamx.on_first_moment(halved), adamx.bias_correction())
    with pytest.raises(ValueError, match=r"Moments\.replace: the new mu at norm has shape \(1,\)"):
        updated(tx, tx.init(PARAMS))
