"""More updates than the count can hold: 2^31 + 5,000, across the step in which it saturates at 2^31-1."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from tests.soak.stream import SIZE, exact_moments, exact_updates, gradient

LAST = 2**31 - 1
WINDOW = 5_000
"""Steps on each side of the saturation that are held against float64 one by one."""

B1, B2, EPS = 0.9, 0.999, 1e-8
UNIT = 2.0**-24
"""The relative error of one rounding in float32."""

# The neighbours of β2 and 1-β2 in float32 do not add up to 1, and roundings of a mean over 1 / (1-β2) steps add up like
# a random walk; the precise form has none of the first.
UNBALANCED = abs(float(np.float32(B2)) + float(np.float32(1 - B2)) - 1) / (1 - B2)
WALK = 8 * UNIT / np.sqrt(1 - B2)
CASES = {
    "default": ({}, UNBALANCED + WALK),
    "precise": ({"precise": True}, WALK),
    # A bfloat16 v walks within a few units in the last place, of up to 2^-7, around the exact one.
    "bfloat16": ({"nu_dtype": "bfloat16"}, 16 * 2.0**-7),
}
START = LAST - WINDOW
starts = pytest.mark.parametrize("start", [START, pytest.param(0, marks=pytest.mark.soak)])


def state_at(tx, t):
    """The state after t steps: as init makes it, or with the moments that float64 gives."""
    state = tx.init(jnp.zeros(SIZE))
    if t == 0:
        return state
    m, v = exact_moments(t, B1, B2)
    return state._replace(
        count=jnp.int32(t), mu=jnp.asarray(m, state.mu.dtype), nu=jnp.asarray(v, jnp.float32).astype(state.nu.dtype)
    )


def fast_forward(tx, state, start, stop):
    """The steps from one to another in one compiled loop: every 2^28 of them the state and the longest step so far."""

    @jax.jit
    def run(n, t, state, longest):
        def body(_, carry):
            t, state, longest = carry
            u, state = tx.update(gradient(t + 1), state)
            return t + 1, state, jnp.maximum(longest, jnp.abs(u))  # a NaN stays

        return jax.lax.fori_loop(0, n, body, (t, state, longest))

    t, longest = jnp.uint32(start), jnp.zeros(SIZE)
    while start < stop:
        n = min(stop - start, 2**28)
        t, state, longest = run(jnp.int32(n), t, state, longest)
        start += n
        assert int(t) == start
        yield start, state, float(jnp.max(longest))


def window(tx, state, first, steps):
    """The updates of some steps, the counts, and the state after them."""

    def body(state, t):
        u, state = tx.update(gradient(t), state)
        return state, (u, state.count)

    ts = jnp.asarray(np.arange(first, first + steps, dtype=np.int64).astype(np.uint32))
    return jax.jit(lambda state: jax.lax.scan(body, state, ts))(state)


def relative(got, exact):
    return np.max(np.abs(np.asarray(got, np.float64) / exact - 1))


@starts
@pytest.mark.parametrize(("arguments", "bound"), CASES.values(), ids=CASES)
def test_updates_across_the_saturation_of_the_count(arguments, bound, start):
    tx = adamx.scale_by_adam(B1, B2, EPS, **arguments)
    state = state_at(tx, start)
    types = jax.tree.map(jax.typeof, tx.init(jnp.zeros(SIZE)))
    for t, now, longest in fast_forward(tx, state, start, START):
        state = now
        assert int(state.count) == t
        assert longest <= 7.27  # Cauchy and Schwarz, over any gradients
        assert jax.tree.map(jax.typeof, state) == types
        assert relative(state.nu, exact_moments(t, B1, B2)[1]) <= bound, t
    before = exact_moments(START, B1, B2)
    after, (updates, counts) = window(tx, state, START + 1, 2 * WINDOW)

    assert jax.tree.map(jax.typeof, after) == types
    np.testing.assert_array_equal(counts, np.minimum(np.arange(START + 1, START + 1 + 2 * WINDOW), LAST))
    exact, updates = exact_updates(START + 1, 2 * WINDOW, *before, B1, B2, EPS), np.asarray(updates, np.float64)
    if "nu_dtype" in arguments:  # what the README says of bfloat16 moments, until their thresholds stand still
        got, true = updates[:WINDOW], exact[:WINDOW]
        assert abs(np.sum(got * true) / np.sum(true * true) - 1) < 0.01
        assert np.median(np.abs(got / true - 1)) < 0.015
        assert np.isfinite(updates).all()
    else:  # half of v's error, and 16 roundings of the largest m
        error = np.abs(updates - exact) / (np.abs(exact) * bound / 2 + 16 * UNIT * np.abs(exact).max())
        assert error.max() <= 1, error.max()


def test_the_bits_of_optax_across_the_saturation_of_the_count():
    ours, theirs = adamx.adam(0.1), optax.adam(0.1)
    state = state_at(adamx.scale_by_adam(), START)
    pairs = ((ours, state), (theirs, optax.ScaleByAdamState(*state)))
    found = []
    for tx, inner in pairs:

        def body(state, t, tx=tx):
            u, state = tx.update(gradient(t), state)
            return state, u

        ts = jnp.asarray(np.arange(START + 1, START + 1 + 2 * WINDOW, dtype=np.int64).astype(np.uint32))
        after, updates = jax.jit(lambda s, ts, body=body: jax.lax.scan(body, s, ts))((inner, optax.EmptyState()), ts)
        found.append([np.asarray(x) for x in jax.tree.leaves((after, updates))])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def at_the_end(leaf):
    """A counter that is as far as it goes; anything else as it is."""
    last = {"int32": LAST, "uint32": 2**32 - 1}.get(leaf.dtype.name)
    return leaf if last is None or leaf.ndim else jnp.asarray(last, leaf.dtype)


WRAPPERS = {f.__name__: f for f in (adamx.with_master_weights, adamx.with_stochastic_rounding)}


@pytest.mark.parametrize("wrap", [*WRAPPERS.values(), lambda tx: tx], ids=[*WRAPPERS, "alone"])
@pytest.mark.parametrize("take", [adamx.step, None], ids=["step", "update"])
def test_every_counter_of_a_state_stays_or_wraps(wrap, take):
    rate, decay = optax.constant_schedule(0.5), optax.constant_schedule(0.25)
    tx, params = wrap(adamx.adamw(rate, weight_decay=decay, nu_dtype="bfloat16")), jnp.ones(4096, jnp.bfloat16)

    @jax.jit
    def step(state, params):
        if take:
            return take(tx, params, state, params)
        updates, state = tx.update(params, state, params)
        return optax.apply_updates(params, updates), state

    state = after = jax.tree.map(at_the_end, tx.init(params))
    for _ in range(3):
        params, after = step(after, params)
    assert jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, state)
    counters = [[int(x) for x in jax.tree.leaves(s) if not x.ndim] for s in (state, after)]
    assert len(counters[0]) >= 3
    assert counters[1] == [LAST if t == LAST else 2 for t in counters[0]]
    assert np.isfinite(np.asarray(params, np.float32)).all()
