"""adamx.adam and adamw against optax's: every bit of updates, moments, count and parameters, over 300 steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.testing import assert_equivalent

STEPS = 300
SCHEDULE = optax.warmup_cosine_decay_schedule(0.0, 1e-2, 20, STEPS)
MASK = {"encoder": [True, False], "empty": True, "wide": {"a": False}}
SETTINGS = {
    "adam": ("adam", {}),
    "adam_eps_root": ("adam", {"eps_root": 1e-7, "eps": 1e-4}),
    "adam_nesterov": ("adam", {"nesterov": True, "b1": 0.95}),
    "adam_betas": ("adam", {"b1": 0.0, "b2": 0.9999}),
    "adamw": ("adamw", {"weight_decay": 0.1}),
    "adamw_mask": ("adamw", {"weight_decay": 0.1, "mask": MASK, "nesterov": True}),
}
RATES = {"constant": 1e-3, "schedule": SCHEDULE}


def pair(setting, rate):
    name, arguments = SETTINGS[setting]
    return getattr(adamx, name)(RATES[rate], **arguments), getattr(optax, name)(RATES[rate], **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_jitted_float32(setting, rate, draw, stream):
    assert_equivalent(*pair(setting, rate), draw(99), stream(STEPS), names=("adamx", "optax"))


@pytest.mark.slow
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_jitted_float64(setting, rate, draw, stream, x64):
    assert_equivalent(*pair(setting, rate), draw(99, jnp.float64), stream(STEPS, jnp.float64))


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["adam", "adamw_mask"])
def test_jitted_float32_under_x64(setting, draw, stream, x64):
    assert_equivalent(*pair(setting, "schedule"), draw(99), stream(STEPS))


@pytest.mark.slow
@pytest.mark.parametrize(("setting", "rate"), [("adam_nesterov", "constant"), ("adamw", "schedule")])
def test_op_by_op(setting, rate, draw, stream):
    keep = "encoder"
    gradients = [{keep: g[keep], "empty": g["empty"]} for g in stream(60)]
    params = {keep: draw(99)[keep], "empty": draw(99)["empty"]}
    assert_equivalent(*pair(setting, rate), params, gradients, jit=False)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.complex64, jnp.complex128])
def test_complex_to_a_few_ulp(dtype, draw, stream, x64):
    # nu is real here and complex in optax, which rounds each square and sum once more: a random walk of 300 roundings
    # in nu. Updates differ by the rounding of optax's complex root and divisions.
    params, gradients = draw(99, dtype), stream(STEPS, dtype)
    ours, theirs = pair("adam", "constant")
    state, reference = ours.init(params), theirs.init(params)
    unit = float(jnp.finfo(dtype).eps)
    for g in gradients:
        u, state = jax.jit(ours.update)(g, state)
        w, reference = jax.jit(theirs.update)(g, reference)
        for a, b in zip(jax.tree.leaves(u), jax.tree.leaves(w), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_less(np.abs(a - b), 8 * unit * np.maximum(np.abs(b), 1e-3))
    for a, b in zip(jax.tree.leaves(state[0].nu), jax.tree.leaves(reference[0].nu), strict=True):
        assert jnp.isrealobj(a)
        np.testing.assert_allclose(a, b.real, rtol=2 * STEPS**0.5 * unit)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_leaves_of_every_small_size_behind_a_clip(name):
    # The clip's scale joins Adam's loop, which XLA:CPU unrolls for a few dozen elements: the likeliest place to round
    # differently.
    def numbers(seed):
        random = np.random.default_rng(seed)
        return {
            str(n): jnp.asarray(random.standard_normal(n), jnp.float32)
            for n in [1, 2, 7, 8, 15, 16, *range(28, 37), 63, 64, 65, 128]
        }

    ours, theirs = (optax.chain(optax.clip_by_global_norm(1.0), getattr(m, name)(1e-3)) for m in (adamx, optax))
    assert_equivalent(ours, theirs, numbers(999), [numbers(t) for t in range(8)])


def train(tx, seed, steps, scan):
    """Fits a two-layer network to random data with update, apply and gradient in one compiled step."""
    keys = jax.random.split(jax.random.key(seed), 4)
    x, y = jax.random.normal(keys[0], (64, 8)), jax.random.normal(keys[1], (64, 1))
    params = {"w1": jax.random.normal(keys[2], (8, 16)), "b1": jnp.zeros(16), "w2": jax.random.normal(keys[3], (16, 1))}

    def loss(p):
        return jnp.mean((jnp.tanh(x @ p["w1"] + p["b1"]) @ p["w2"] - y) ** 2)

    def step(carry, _):
        p, state = carry
        value, gradient = jax.value_and_grad(loss)(p)
        updates, state = tx.update(gradient, state, p)
        return (optax.apply_updates(p, updates), state), value

    carry = (params, tx.init(params))
    if scan:
        return jax.jit(lambda c: jax.lax.scan(step, c, length=steps))(carry)
    jitted = jax.jit(step)
    values = []
    for _ in range(steps):
        carry, value = jitted(carry, None)
        values.append(value)
    return carry, jnp.stack(values)


@pytest.mark.slow
@pytest.mark.parametrize("scan", [False, True], ids=["step", "scan"])
@pytest.mark.parametrize("setting", ["adam", "adam_nesterov", "adamw"])
def test_inside_a_training_step(setting, scan):
    ours, theirs = pair(setting, "schedule")
    a, b = train(ours, 0, STEPS, scan), train(theirs, 0, STEPS, scan)
    assert a[1][-1] < 0.5 * a[1][0]
    for mine, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(mine, other)
