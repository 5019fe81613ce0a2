"""The family against optax's, every bit of updates, moments, counts and parameters over 300 steps; and torch's."""

import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.testing import assert_equivalent

STEPS = 300
SETTINGS = {
    "amsgrad": {},
    "amsgrad of the paper": {"bias_correction_mu": False, "bias_correction_nu": False},
    "amsgrad, v corrected alone": {"bias_correction_mu": False, "eps_root": 1e-7},
    "amsgrad, m corrected alone": {"bias_correction_nu": False, "b1": 0.0, "b2": 0.9999},
    "nadam": {"b1": 0.95},
    "nadamw": {"weight_decay": 0.1, "mask": lambda p: jax.tree.map(lambda x: x.ndim > 1, p)},
    "adamax": {},
    "adamax, fast": {"b1": 0.8, "b2": 0.99, "eps": 1e-4},
    "adamaxw": {"weight_decay": optax.linear_schedule(0.1, 0.0, 100)},
    "radam": {},
    "radam, early": {"nesterov": True, "b2": 0.99, "eps_root": 1e-7, "threshold": 4.5},
    "radam, never": {"b2": 0.5},
    "adabelief": {},
    "adabelief, nesterov": {"nesterov": True, "b2": 0.99, "eps": 1e-8, "eps_root": 0.0},
}
CONTRACTED = {"radam, early": 2}
"""Units in the last place of a parameter: on AVX2 the compiler contracts `p + u` into one rounding in one of the two
programs, in the elements behind the last whole vector."""
RATES = {"constant": 1e-3, "schedule": optax.warmup_cosine_decay_schedule(0.0, 1e-2, 20, STEPS)}


def pair(setting, rate="constant"):
    """adamx's and optax's optimizer of a setting."""
    name, arguments = setting.split(",")[0].split()[0], SETTINGS[setting]
    if not arguments.keys() <= inspect.signature(getattr(optax, name)).parameters.keys():
        pytest.skip(f"optax.{name} of this version has no such arguments")
    if callable(arguments.get("weight_decay")) and optax.__version__.startswith("0.2.5"):
        pytest.skip("this optax has no scheduled weight decay")
    return tuple(getattr(module, name)(RATES[rate], **arguments) for module in (adamx, optax))


settings = pytest.mark.parametrize("setting", SETTINGS)


@pytest.mark.slow
@settings
@pytest.mark.parametrize("rate", RATES)
def test_jitted_float32(setting, rate, draw, stream):
    ulps = CONTRACTED.get(setting, 0)
    assert_equivalent(*pair(setting, rate), draw(99), stream(STEPS), max_ulps=ulps, names=("adamx", "optax"))


@pytest.mark.slow
@settings
def test_jitted_float64(setting, draw, stream, x64):
    params, gradients = draw(99, jnp.float64), stream(STEPS, jnp.float64)
    ulps = CONTRACTED.get(setting, 0)
    assert_equivalent(*pair(setting), params, gradients, max_ulps=ulps, names=("adamx", "optax"))


@pytest.mark.slow
@settings
def test_op_by_op(setting, draw, stream):
    assert_equivalent(*pair(setting), draw(99), stream(8), jit=False)


@pytest.mark.slow
@settings
def test_op_by_op_over_300_steps(setting, draw, stream):
    assert_equivalent(*pair(setting), draw(99), stream(STEPS), jit=False)


@pytest.mark.slow
@settings
def test_op_by_op_in_float64(setting, draw, stream, x64):
    params, gradients = draw(99, jnp.float64), stream(STEPS, jnp.float64)
    assert_equivalent(*pair(setting), params, gradients, jit=False)


GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "torch.npz")
THETA, GRADIENTS, RATE = GOLDEN["theta"], GOLDEN["gradients"], float(GOLDEN["rate"])
KEPT = slice(int(GOLDEN["every"]) - 1, None, int(GOLDEN["every"]))
TORCH = {
    "amsgrad": optax.chain(
        adamx.scale_by_moments(),
        adamx.optimizers.running_max(corrected=False),
        adamx.bias_correction(),
        adamx.scale_by_lr(RATE),
    ),
    "nadam": adamx.nadam(RATE),
    "nadamw": adamx.nadamw(RATE, weight_decay=0.1),
    "adamax": adamx.adamax(RATE),
    "adamax_eps": adamx.adamax(RATE, 0.8, 0.99, 1e-3),
    "radam": adamx.radam(RATE, eps=0.0),
}


def driven(tx, gradients=GRADIENTS, theta=THETA):
    """The parameters after each step, in float64."""

    def step(carry, g):
        theta, state = carry
        updates, state = tx.update(g, state, theta)
        theta = optax.apply_updates(theta, updates)
        return (theta, state), theta

    theta = jnp.asarray(theta)
    return jax.jit(lambda t, s, g: jax.lax.scan(step, (t, s), g)[1])(theta, tx.init(theta), jnp.asarray(gradients))


@pytest.mark.parametrize("name", TORCH)
def test_matches_torch_in_float64(name, x64):
    np.testing.assert_allclose(driven(TORCH[name])[KEPT], GOLDEN[name], rtol=1e-12, atol=1e-12)


def test_the_radam_of_torch_adds_epsilon_before_it_corrects():
    m, v, theta, path = 0.0, 0.0, THETA, []
    for t, g in enumerate(GRADIENTS, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w1, w2 = 1 - 0.9**t, 1 - 0.999**t
        rho = 1999 - 2 * t * 0.999**t / w2
        r = np.sqrt((rho - 4) * (rho - 2) * 1999 / (1995 * 1997 * rho)) if rho > 5 else 0.0
        theta = theta - RATE * (m / w1) * (r * np.sqrt(w2) / (np.sqrt(v) + 1e-3) if rho > 5 else 1.0)
        path.append(theta)
    np.testing.assert_allclose(np.stack(path)[KEPT], GOLDEN["radam_eps"], rtol=1e-10, atol=1e-12)


def test_the_nadam_of_torch_lets_b1_grow():
    m, v, theta, product, path = 0.0, 0.0, THETA, 1.0, []
    for t, g in enumerate(GRADIENTS, start=1):
        now, ahead = (0.9 * (1 - 0.5 * 0.96 ** (s * 0.004)) for s in (t, t + 1))
        product *= now
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        m_hat = ahead * m / (1 - product * ahead) + (1 - now) * g / (1 - product)
        theta = theta - RATE * m_hat / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        path.append(theta)
    np.testing.assert_allclose(np.stack(path)[KEPT], GOLDEN["nadam_default"], rtol=1e-10, atol=1e-12)
