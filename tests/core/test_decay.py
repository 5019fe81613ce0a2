import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx

U = {"dense": {"kernel": jnp.asarray([[1.0, -2.0]]), "bias": jnp.asarray([4.0])}}
P = {"dense": {"kernel": jnp.asarray([[2.0, 4.0]]), "bias": jnp.asarray([8.0])}}
DECAYED = {"dense": {"kernel": [[2.0, 0.0]], "bias": [8.0]}}


def decayed(weight_decay=0.5, mask=None, updates=U, params=P, steps=1):
    tx = adamx.add_decayed_weights(weight_decay, mask)
    state = tx.init(params)
    for _ in range(steps):
        out, state = tx.update(updates, state, params)
    return out


def assert_equal(tree, expected):
    jax.tree.map(np.testing.assert_array_equal, tree, expected)


NUMBERS = [0.5, np.float16(0.5), np.float64(0.5), np.asarray(0.5), jnp.float32(0.5), jnp.bfloat16(0.5)]


@pytest.mark.parametrize("number", [*NUMBERS, *[lambda count, n=n: n for n in NUMBERS]])
def test_the_parameters_times_the_decay_are_added(number):
    out = decayed(number)
    np.testing.assert_array_equal(out["dense"]["kernel"], DECAYED["dense"]["kernel"])
    np.testing.assert_array_equal(out["dense"]["bias"], DECAYED["dense"]["bias"])


@pytest.mark.parametrize("number", [0, 0.0, np.float32(0), jnp.float32(0), lambda count: 0])
def test_no_decay_changes_nothing(number):
    assert_equal(decayed(number), U)


def test_a_schedule_is_called_with_the_steps_taken_before():
    out = decayed(lambda count: count / 4, steps=3)
    np.testing.assert_array_equal(out["dense"]["bias"], DECAYED["dense"]["bias"])
    tx = adamx.add_decayed_weights(optax.linear_schedule(0.0, 1.0, 4))
    state, outs = jax.lax.scan(lambda s, _: tx.update(U, s, P)[::-1], tx.init(P), length=3)
    assert state.count == 3
    np.testing.assert_array_equal(outs["dense"]["bias"][:, 0], [4.0, 6.0, 8.0])


MASKS = {
    "tree": {"dense": {"kernel": True, "bias": False}},
    "function": lambda params: jax.tree.map(lambda p: p.ndim > 1, params),
    "numpy bool": {"dense": {"kernel": np.True_, "bias": np.False_}},
}


@pytest.mark.parametrize("weight_decay", [0.5, lambda count: 0.5], ids=["number", "schedule"])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_the_mask_says_which_leaves_decay(mask, weight_decay):
    out = decayed(weight_decay, mask)
    np.testing.assert_array_equal(out["dense"]["kernel"], DECAYED["dense"]["kernel"])
    np.testing.assert_array_equal(out["dense"]["bias"], U["dense"]["bias"])


@pytest.mark.parametrize("prefix", [True, {"dense": True}])
def test_the_mask_may_be_a_prefix(prefix):
    np.testing.assert_array_equal(decayed(mask=prefix)["dense"]["bias"], DECAYED["dense"]["bias"])
    off = jax.tree.map(lambda _: False, prefix)
    assert_equal(decayed(mask=off), U)


@pytest.mark.parametrize("mask", [{"dens": True}, [True], lambda params: None], ids=["key", "list", "None"])
def test_a_mask_that_is_no_prefix_is_refused(mask):
    with pytest.raises(ValueError, match=r"prefix|expected keys|Expected list"):
        decayed(mask=mask)


@pytest.mark.parametrize("value", ["1e-4", None, True, 1j, [1e-4], (1e-4,), {"a": 1e-4}, optax.sgd(0.1)])
def test_a_decay_that_is_no_number_is_named(value):
    with pytest.raises(TypeError, match=r"^weight_decay must be a real number") as caught:
        adamx.add_decayed_weights(value)
    assert str(value)[:20] in str(caught.value)


@pytest.mark.parametrize("value", [-1e-4, np.nan, np.inf, np.float32(-1), jnp.float32(-1)])
def test_a_decay_out_of_range_is_named_with_its_value(value):
    with pytest.raises(ValueError, match=rf"^weight_decay must be a finite number of at least 0, got {float(value)}"):
        adamx.add_decayed_weights(value)


@pytest.mark.parametrize("schedule", [lambda count: "0.1", lambda count: None, lambda: 0.1, lambda c: jnp.ones(1)])
@pytest.mark.parametrize("mask", [None, True])
def test_a_schedule_that_gives_no_number_is_named_at_init(schedule, mask):
    with pytest.raises(TypeError, match="weight_decay schedule <lambda>"):
        adamx.add_decayed_weights(schedule, mask).init(P)


@pytest.mark.parametrize("weight_decay", [0.5, 0.0, lambda count: 0.5])
def test_missing_parameters_are_asked_for(weight_decay):
    tx = adamx.add_decayed_weights(weight_decay)
    with pytest.raises(ValueError, match=r"needs the parameters: tx\.update\(gradients, state, params\)"):
        tx.update(U, tx.init(P))


BAD_PARAMS = {
    "broadcastable": ({"kernel": jnp.ones((1, 2)), "bias": jnp.ones(())}, ValueError, ["dense/bias", "()", "(1,)"]),
    "larger": ({"kernel": jnp.ones((3, 2)), "bias": jnp.ones(1)}, ValueError, ["dense/kernel", "(3, 2)", "(1, 2)"]),
    "missing": ({"kernel": jnp.ones((1, 2))}, ValueError, ["missing dense/bias"]),
    "list": ([jnp.ones((1, 2)), jnp.ones(1)], ValueError, ["at dense expected dict, got list"]),
    "None": ({"kernel": jnp.ones((1, 2)), "bias": None}, ValueError, ["at dense/bias expected an array"]),
    "int": ({"kernel": jnp.ones((1, 2), int), "bias": jnp.ones(1)}, TypeError, ["dense/kernel", "adamx.route"]),
    "str": ({"kernel": "relu", "bias": jnp.ones(1)}, TypeError, ["dense/kernel", "adamx.route"]),
    "complex": ({"kernel": jnp.ones((1, 2)) * 1j, "bias": jnp.ones(1)}, TypeError, ["dense/kernel", "complex64"]),
}


@pytest.mark.parametrize("weight_decay", [0.5, lambda count: 0.5], ids=["number", "schedule"])
@pytest.mark.parametrize(("params", "error", "words"), BAD_PARAMS.values(), ids=BAD_PARAMS.keys())
def test_parameters_that_do_not_fit_the_updates_are_named(params, error, words, weight_decay):
    tx = adamx.add_decayed_weights(weight_decay)
    with pytest.raises(error) as caught:
        tx.update(U, tx.init(P), {"dense": params})
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("state", [optax.EmptyState(), (jnp.int32(0),), {"count": 0}, None])
def test_a_state_of_another_kind_is_refused(state):
    with pytest.raises(TypeError, match="expected the state that init returned"):
        adamx.add_decayed_weights(lambda count: 0.5).update(U, state, P)


@pytest.mark.parametrize("params", ["float32", "bfloat16", "float8_e5m2"])
@pytest.mark.parametrize("updates", ["bfloat16", "float16", "float8_e4m3fn"])
def test_narrow_updates_and_parameters_meet_in_float32(updates, params):
    u, p = jnp.linspace(-3, 3, 41).astype(updates), jnp.linspace(2, 5, 41).astype(params)
    out = decayed(0.3, updates=u, params=p)
    assert out.dtype == u.dtype
    wide = np.asarray(u, np.float32) + np.float32(0.3) * np.asarray(p, np.float32)
    np.testing.assert_array_equal(out, wide.astype(u.dtype))


def test_none_and_empty_nodes_stay():
    tree = {"a": None, "b": (), "c": jnp.zeros((0, 3)), "d": [jnp.ones(2)]}
    out = decayed(0.5, updates=tree, params=tree)
    assert jax.tree.structure(out) == jax.tree.structure(tree)
    np.testing.assert_array_equal(out["d"][0], 1.5)
    assert out["c"].shape == (0, 3)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("weight_decay", [0.25, lambda count: (1 + count) / 12], ids=["number", "schedule"])
def test_decay_weights_takes_the_parameters_away(weight_decay, mask):
    tx = adamx.decay_weights(weight_decay, mask)
    state = tx.init(P)
    for _ in range(3):
        out, state = tx.update(U, state, P)
    np.testing.assert_array_equal(out["dense"]["kernel"], [[0.5, -3.0]])
    np.testing.assert_array_equal(out["dense"]["bias"], [4.0])


SIGNS = {
    "agree": (2.0, 3.0, True),
    "agree below zero": (-2.0, -3.0, True),
    "differ": (2.0, -3.0, False),
    "differ, and their product vanishes": (1e-30, -1e-30, False),
    "agree, and their product overflows": (1e30, 1e30, True),
    "no direction": (0.0, -3.0, True),
    "minus zero": (-0.0, 3.0, True),
    "no parameter": (2.0, 0.0, True),
    "an infinite parameter": (2.0, -np.inf, False),
    "a right angle": (1j, 2.0 + 0j, True),
    "an acute angle": (1 + 1j, 2.0 + 0j, True),
    "an obtuse angle": (-1 + 1j, 2.0 + 0j, False),
}


@pytest.mark.parametrize(("u", "p", "decays"), SIGNS.values(), ids=SIGNS.keys())
def test_a_cautious_decay_never_opposes_the_direction(u, p, decays):
    for make, sign in ((adamx.add_decayed_weights, 1), (adamx.decay_weights, -1)):
        tx = make(0.5, cautious=True)
        update, param = jnp.asarray([sign * u]), jnp.asarray([p])
        np.testing.assert_allclose(
            tx.update(update, tx.init(param), param)[0], [sign * (u + 0.5 * p * decays if decays else u)]
        )


def test_a_nan_shows_through_a_cautious_decay():
    tx, nan = adamx.add_decayed_weights(0.5, cautious=True), jnp.asarray([jnp.nan])
    assert jnp.isnan(tx.update(nan, tx.init(nan), jnp.ones(1))[0]).all()
    assert jnp.isnan(tx.update(jnp.ones(1), tx.init(nan), nan)[0]).all()


def test_cautious_is_true_or_false():
    with pytest.raises(TypeError, match=r"^cautious must be True or False, got 0\.5"):
        adamx.add_decayed_weights(0.5, cautious=0.5)
    with pytest.raises(TypeError, match=r"^cautious must be True or False, got 'yes'"):
        adamx.decay_weights(0.5, cautious="yes")


@pytest.mark.parametrize("mask", ["bias$", ["bias$"], {"w": "decay", "b": "no"}])
def test_a_pattern_is_no_mask(mask):
    for make in (adamx.add_decayed_weights, adamx.decay_weights):
        with pytest.raises(TypeError, match=r"mask must have booleans, got '.*': for a pattern, mask=adamx\.match\("):
            make(0.1, mask)
