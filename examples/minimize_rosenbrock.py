"""Rosenbrock's function minimized until nothing moves any more, with exact gradients and with noisy ones.

    python examples/minimize_rosenbrock.py

A bent valley: its floor is found in a few steps, its lowest point, (1, 1), in many. With exact gradients Adam comes to
rest by itself. With noisy ones, here from batches, its steps stay as long as its rate: a constant rate runs into
max_steps, a falling one converges. Without batches the whole run is one loop on the device; a callback looks at each
step, and ends the run if it returns True.
"""

import itertools

import jax.numpy as jnp
import numpy as np
import optax

import adamx


def rosenbrock(p, noise=(0.0, 0.0)):
    slope, height = noise
    return 100 * (p["y"] - p["x"] ** 2) ** 2 + (1 - p["x"]) ** 2 + slope * p["x"] + height * p["y"]


def noises():
    """Noise of the gradient, one batch for each step, without end."""
    random = np.random.default_rng(0)
    return (random.standard_normal(2).astype(np.float32) for _ in itertools.count())


def show(name: str, found: adamx.loop.MinimizeResult) -> None:
    where = ", ".join(f"{float(found.params[axis]):.4f}" for axis in "xy")
    print(f"{name:33} ({where}) after {found.steps:5} steps: {found.stopped.name}")


start = {"x": jnp.array(-1.5), "y": jnp.array(2.0)}
falling = optax.exponential_decay(0.05, transition_steps=500, decay_rate=0.5)
limits = {"max_steps": 10_000, "atol": 1e-6}

show("adam, exact", adamx.minimize(rosenbrock, start, adamx.adam(0.02), **limits))
show("lbfgs, exact", adamx.minimize(rosenbrock, start, optax.lbfgs(), **limits))

noisy = limits | {"batches": noises()}
show("adam, noisy", adamx.minimize(rosenbrock, start, adamx.adam(0.05), **noisy))
show("adam, noisy, falling rate", adamx.minimize(rosenbrock, start, adamx.adam(falling), **noisy))

found = adamx.minimize(rosenbrock, start, adamx.adam(0.02), max_steps=5000, callback=lambda at: bool(at.value < 0.1))
show("adam, until the callback stops it", found)
print(f"the objective fell from {found.history[0]:.2f} to {found.history[-1]:.3f}")
