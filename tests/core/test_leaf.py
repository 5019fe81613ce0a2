import jax.numpy as jnp
import numpy as np
import pytest

from adamx.core.averages import averages_of, of_squares
from adamx.core.leaf import (
    MASTER,
    PLAIN,
    STOCHASTIC,
    Leaf,
    Numbers,
    Rule,
    Term,
    land,
    opposes,
    step_leaf,
    weight_behind,
)
from adamx.storage.dither import Walk
from adamx.storage.split import join
from adamx.testing import reference_adam

WALK = Walk(np.uint32(0), jnp.uint32(1))
G, P = np.float32([0.3, -2.0, 0.0]), np.float32([1.0, -1.0, 0.5])


def stepped(g, p, terms, factor=None, nesterov=False):
    weights = [1 - 0.9, 1 - 0.999, 1 - 0.9**2]
    numbers = Numbers(factor, *map(jnp.float32, (0.9, 0.999, *weights, 1e-8, 0.0)), jnp.uint32(1), jnp.uint32(1))
    leaf = Leaf(jnp.asarray(g), jnp.asarray(p), None, jnp.zeros(jnp.shape(p)), jnp.zeros(jnp.shape(p)))
    rule = Rule(averages_of(of_squares, 0.9, 0.999, None, None, False), 1e-8, nesterov, PLAIN)
    return step_leaf(rule, numbers, leaf, terms, WALK, WALK)


@pytest.mark.parametrize("nesterov", [False, True])
def test_is_algorithm_1(nesterov):
    after = stepped(G, P, [Term(scale=-0.1)], nesterov=nesterov)
    exact = reference_adam(P, [G], 0.1, nesterov=nesterov).theta[-1]
    np.testing.assert_allclose(after.param, exact, rtol=1e-6)
    assert after.gradient is None


def test_terms_act_in_their_order():
    decayed_then_scaled = stepped(0 * G, P, [Term(decay=0.5), Term(scale=-0.5)])
    np.testing.assert_allclose(decayed_then_scaled.param, P - 0.25 * P, rtol=1e-6)
    scaled_then_decayed = stepped(0 * G, P, [Term(scale=-0.5), Term(decay=0.5)])
    np.testing.assert_allclose(scaled_then_decayed.param, P + 0.5 * P, rtol=1e-6)
    np.testing.assert_array_equal(stepped(0 * G, P, [Term()]).param, P)


def test_a_cautious_term_acts_where_it_does_not_oppose_the_update():
    decayed = stepped(G, P, [Term(decay=0.5, cautious=True), Term(scale=-0.1)]).param
    always, never = (stepped(G, P, [*terms, Term(scale=-0.1)]).param for terms in ([Term(decay=0.5)], []))
    np.testing.assert_array_equal(decayed, always)  # direction and parameter agree in all, or there is no direction
    np.testing.assert_array_equal(
        stepped(-G, P, [Term(decay=0.5, cautious=True)]).param[:2], stepped(-G, P, []).param[:2]
    )
    late = stepped(G, P, [Term(scale=-0.1), Term(decay=-0.05, cautious=True)]).param
    np.testing.assert_allclose(late, always, rtol=1e-6)
    assert not np.allclose(always, never)


def test_gradients_are_multiplied_before_they_are_averaged():
    half, full = stepped(G, P, [], factor=jnp.float32(0.5)), stepped(np.float32(0.5) * G, P, [])
    np.testing.assert_array_equal(half.nu, full.nu)
    np.testing.assert_array_equal(half.mu, full.mu)


def test_an_infinite_parameter_that_does_not_decay_stays_so():
    assert jnp.isinf(stepped(G, np.float32([np.inf, 1, 1]), [Term(scale=-0.1)]).param[0])


@pytest.mark.parametrize(
    ("a", "b", "differ"),
    [
        (1.0, -2.0, True),
        (-1.0, 2.0, True),
        (1.0, 2.0, False),
        (-1.0, -2.0, False),
        (0.0, -2.0, False),
        (1.0, -0.0, False),
        (1e-30, -1e-30, True),
        (jnp.nan, -1.0, False),
        (-jnp.inf, 1.0, True),
        (1j, 1.0, False),
        (1j - 1e-3, 1.0, True),
        (1j, -1j, True),
    ],
)
def test_opposes(a, b, differ):
    assert bool(opposes(jnp.asarray(a), jnp.asarray(b))) == differ
    assert bool(opposes(jnp.asarray(b), jnp.asarray(a))) == differ


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3fn", "float32"])
@pytest.mark.parametrize("behind", [PLAIN, MASTER, STOCHASTIC])
def test_a_parameter_lands_in_its_dtype(dtype, behind):
    p = jnp.asarray([1.0, -3.0], dtype)
    kept = {"bfloat16": jnp.zeros(2, jnp.uint16), "float32": None}.get(dtype, p.astype("float32"))
    remainder = kept if behind == MASTER else None
    start = weight_behind(p, remainder)
    param, after = land(behind, p, remainder, start, jnp.float32(2.0**-12), WALK)
    assert param.dtype == p.dtype
    assert (after is None) == (remainder is None)
    if remainder is not None:
        whole = join(param, after) if dtype == "bfloat16" else after
        np.testing.assert_array_equal(whole, start + 2.0**-12)


@pytest.mark.slow
def test_stochastic_rounding_moves_where_nearest_does_not():
    p = jnp.ones(10_000, "bfloat16")
    args = (None, weight_behind(p), jnp.float32(2.0**-9), WALK)
    nearest, dithered = (land(behind, p, *args)[0].astype("float32") for behind in (PLAIN, STOCHASTIC))
    assert (nearest == 1).all()
    assert abs(float(dithered.mean()) - 1 - 2.0**-9) < 2.0**-13


def test_a_weight_that_something_else_has_set_is_the_parameter():
    p = jnp.asarray([1.0, 2.0], "float16")
    np.testing.assert_array_equal(weight_behind(p, jnp.asarray([1.0001, 5.0])), np.float32([1.0001, 2.0]))
