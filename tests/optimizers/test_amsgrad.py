import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx


def steps(tx, gradients):
    """All updates and the last state."""

    def step(state, g):
        u, state = tx.update(g, state)
        return state, u

    return jax.jit(lambda s, g: jax.lax.scan(step, s, g)[::-1])(tx.init(jnp.zeros_like(gradients[0])), gradients)


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("corrected", [True, False])
def test_the_divisor_never_falls(corrected):
    g = np.random.default_rng(1).standard_normal((30, 4)) * np.geomspace(100, 0.01, 30)[:, None]
    stages = adamx.scale_by_moments(b2=0.9), adamx.optimizers.running_max(corrected), adamx.bias_correction()
    found, state = steps(optax.chain(*stages), jnp.asarray(g, jnp.float32))
    m, v, v_max = 0.0, 0.0, 0.0
    for t, row in enumerate(g, start=1):
        m, v, weight = 0.9 * m + 0.1 * row, 0.9 * v + 0.1 * row**2, 1 - 0.9**t
        v_max = np.maximum(v_max, v / weight if corrected else v)
        v_hat = v_max if corrected else v_max / weight
        np.testing.assert_allclose(found[t - 1], m / (1 - 0.9**t) / (np.sqrt(v_hat) + 1e-8), rtol=1e-4)
    np.testing.assert_allclose(state[1].nu_max, v_max, rtol=1e-5)


def test_the_paper_corrects_nothing():
    g = normal(20, 3)
    by_hand = optax.chain(adamx.scale_by_moments(), adamx.optimizers.running_max(corrected=False), adamx.uncorrected())
    ours = adamx.optimizers.scale_by_amsgrad(bias_correction_mu=False, bias_correction_nu=False)
    np.testing.assert_array_equal(steps(ours, g)[0], steps(by_hand, g)[0])


def test_by_hand_is_the_alias():
    by_hand = optax.chain(
        adamx.scale_by_moments(), adamx.optimizers.running_max(), adamx.bias_correction(), adamx.scale_by_lr(0.1)
    )
    (u, one), (w, two) = (steps(tx, normal(20, 3)) for tx in (adamx.amsgrad(0.1), by_hand))
    np.testing.assert_array_equal(u, w)
    assert one[0]._fields == ("count", "mu", "nu", "nu_max")
    jax.tree.map(np.testing.assert_array_equal, tuple(one[0])[:4], (*two[0], two[1].nu_max))


def test_goes_on_from_a_state_of_optax():
    ours, theirs, g = adamx.amsgrad(0.1), optax.amsgrad(0.1), normal(10, 3)
    _, state = steps(theirs, g)
    a, _ = jax.jit(ours.update)(g[0], (adamx.optimizers.AmsgradState(*state[0]), state[1]))
    b, _ = jax.jit(theirs.update)(g[0], state)
    np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_the_maximum_stays_wide_where_moments_are_narrow():
    g, codec = normal(60, 64), adamx.storage.Int8(min_size=0)
    exact, _ = steps(adamx.amsgrad(1.0), g)
    for narrow in ("bfloat16", codec):
        found, state = steps(adamx.amsgrad(1.0, mu_dtype=narrow, nu_dtype=narrow), g)
        assert state[0].nu_max.dtype == jnp.float32
        assert state[0].count == 60
        # v̂ of int8 scatters by a few percent around the truth, and the maximum keeps the largest of 60
        assert abs(float(jnp.sum(found * exact) / jnp.sum(exact**2)) - 1) < 0.1


@pytest.mark.slow
def test_converges_where_adam_does_not():
    # The online problem of the paper's theorem 1: f_t(x) = 3 x every third step, else -x, on [-1, 1], so that -1 is
    # best; with β1 = 0, β2 = 1/(1+3²) and α_t = α/√t Adam goes to +1.
    def last(make):
        tx = make(lambda count: 0.5 / jnp.sqrt(count + 1.0), b1=0.0, b2=0.1)

        def step(carry, t):
            x, state = carry
            u, state = tx.update(jnp.where(t % 3 == 1, 3.0, -1.0), state)
            return (jnp.clip(x + u, -1, 1), state), x

        x = jnp.zeros(())
        return jax.lax.scan(step, (x, tx.init(x)), jnp.arange(1, 1501))[1][-300:].mean()

    assert last(adamx.adam) > 0.5
    assert last(adamx.amsgrad) < -0.8


def test_an_infinite_corrected_v_is_not_kept():
    g = jnp.ones((700, 3)).at[0].set(jnp.asarray([1e20, 1e30, 1.0]))
    found, state = steps(adamx.optimizers.scale_by_amsgrad(), g)
    np.testing.assert_array_equal(state.nu_max[:2], np.finfo(np.float32).max)
    np.testing.assert_allclose(found[0], [1e20 / 2**64, 2 / (1 - 0.9), 1.0], rtol=1e-4)


@pytest.mark.parametrize(
    ("state", "came"),
    [
        (adamx.MomentsState(jnp.int32(0), jnp.zeros(2), jnp.zeros(2)), "RunningMaxState, got MomentsState"),
        (adamx.optimizers.RunningMaxState({"a": jnp.zeros(2)}), "nu_max"),
        (adamx.optimizers.RunningMaxState(jnp.zeros(3)), r"nu_max at the tree itself has shape \(3,\)"),
    ],
    ids=["kind", "structure", "shape"],
)
def test_a_state_that_is_not_its_own_is_refused(state, came):
    tx = optax.chain(adamx.scale_by_moments(), adamx.optimizers.running_max(), adamx.bias_correction())
    first, _, last = tx.init(jnp.zeros(2))
    with pytest.raises(TypeError, match=came):
        tx.update(jnp.ones(2), (first, state, last))


def test_errors():
    with pytest.raises(TypeError, match="running_max\\(\\) takes the Moments"):
        adamx.optimizers.running_max().update(jnp.ones(1), adamx.optimizers.RunningMaxState(jnp.ones(1)))
    with pytest.raises(TypeError, match="corrected must be True or False, got 1"):
        adamx.optimizers.running_max(1)
    with pytest.raises(TypeError, match="bias_correction_nu must be True or False"):
        adamx.amsgrad(0.1, bias_correction_nu="no")
