"""Is the average of the last parameters better than the last parameters, and what does its bias correction do?

Kingma & Ba (2015), section 7.2: the last parameters are noisy, and an average of parameters is often better, `θ̄_t = β
θ̄_{t-1} + (1-β) θ_t` divided by `1-β^t`. That is `optax.ema` of the parameters. Logistic regression on the digits from
a random start, Adam at constant learning rates; for each of the averages and for the last parameters the best learning
rate of the same grid, in powers of √10, on the seeds that are reported. Shown is the excess of the training cost over
its minimum.
"""

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from claims import AHEAD, Claim, ahead, spread
from drawing import bands, finish
from figures import panels
from logistic_digits import minimum
from problems import dense, logistic
from report import Data, Experiment, Result, Table, curve, main
from training import BATCH, Problem, end

import adamx

DECAYS = (0.9, 0.99, 0.999)
LAST = "last parameters"


def averages() -> dict[str, optax.GradientTransformation]:
    """Averages of what they are given step by step: of the parameters."""
    corrected = {f"average, β = {decay}": optax.ema(decay) for decay in DECAYS}
    return corrected | {f"average, β = {decay}, uncorrected": optax.ema(decay, debias=False) for decay in DECAYS[1:]}


def run(problem: Problem, steps: int, every: int, rate: jax.Array, seed: jax.Array) -> dict[str, jax.Array]:
    """The cost of the last parameters and of every average, at every evaluation."""
    tx, means = adamx.adam(rate), averages()

    def step(carry: Any, drawn: Any) -> tuple[Any, None]:
        params, state, kept, _ = carry
        gradients = jax.grad(problem.loss)(params, problem.batch(drawn), jax.random.key(0))
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        found = {name: mean.update(params, kept[name]) for name, mean in means.items()}
        return (params, state, {n: s for n, (_, s) in found.items()}, {n: a for n, (a, _) in found.items()}), None

    def some(carry: Any, drawn: Any) -> tuple[Any, dict[str, jax.Array]]:
        carry = jax.lax.scan(step, carry, drawn)[0]
        return carry, {LAST: problem.cost(carry[0])} | {name: problem.cost(a) for name, a in carry[3].items()}

    start, batches = jax.random.split(jax.random.key(seed))
    params = problem.init(start)
    chosen = jax.random.randint(batches, (steps // every, every, BATCH), 0, problem.size)
    kept = {name: mean.init(params) for name, mean in means.items()}
    carry = params, tx.init(params), kept, dict.fromkeys(means, params)
    return jax.lax.scan(some, carry, chosen)[1]


def measure(quick: bool) -> Result:
    steps, every, seeds = (40, 4, 2) if quick else (2000, 20, 5)
    regression = logistic()
    lowest = minimum(regression, 30 if quick else 200)
    problem = regression._replace(
        init=lambda key: dense(key, 64, 10), cost=lambda params: regression.cost(params) - lowest
    )
    rates = 10.0 ** np.arange(-3, 0.1, 1 if quick else 0.5)
    lanes = jax.jit(jax.vmap(jax.vmap(lambda r, s: run(problem, steps, every, r, s), (None, 0)), (0, None)))
    measured = lanes(jnp.asarray(rates, jnp.float32), jnp.arange(seeds))
    found = {name: np.asarray(measured[name], np.float64) for name in (LAST, *averages())}
    best = {name: int(np.argmin(end(c).mean(axis=1))) for name, c in found.items()}
    curves = {name: c[best[name]] for name, c in found.items()}
    early = max(1, steps // every // 20)
    rows = [
        [name, f"{rates[i]:.2g}{'' if 0 < i < len(rates) - 1 else ' (edge)'}", spread(c[:, early - 1]), spread(end(c))]
        for (name, c), i in zip(curves.items(), best.values(), strict=True)
    ]
    header = ["", "best learning rate", f"excess, step {early * every}", "at the end"]
    table = Table(
        f"Excess of the training cost over its minimum, {lowest:.5f} nats, mean ± s.d. over the seeds", header, rows
    )
    data = {name: curve(every * np.arange(1, c.shape[1] + 1), c) for name, c in curves.items()}
    setting = f"{steps} steps, seeds 0 to {seeds - 1}, {len(rates)} learning rates from {rates[0]:g} to {rates[-1]:g}."
    return Result(setting, [table], judge(curves, found[LAST], best, found, early), data)


def judge(curves: dict[str, np.ndarray], last: np.ndarray, best: dict[str, int], found: Any, early: int) -> list[Claim]:
    claims = [
        Claim(
            f"the average with β = {decay} ends better than the last parameters (Kingma & Ba, section 7.2)",
            f"each at its best learning rate: {AHEAD}",
            ahead(end(curves[f"average, β = {decay}"]), end(curves[LAST])),
            f"average {spread(end(curves[f'average, β = {decay}']))}, last {spread(end(curves[LAST]))}",
        )
        for decay in DECAYS
    ]
    name = f"average, β = {DECAYS[-1]}"
    ours = found[name][best[name]][:, early - 1]
    theirs = found[f"{name}, uncorrected"][best[name]][:, early - 1]
    claims.append(
        Claim(
            "without the correction the average is worse at first (Kingma & Ba, section 7.2)",
            f"β = {DECAYS[-1]}, at the best learning rate of the corrected one, after a twentieth of the steps: "
            f"{AHEAD}",
            ahead(ours, theirs),
            f"corrected {spread(ours)}, uncorrected {spread(theirs)}",
        )
    )
    return claims


def draw(data: Data, path: Path) -> None:
    figure, (axis,) = panels(height=4.4)
    bands(axis, data)
    axis.set(xscale="log", yscale="log", xlabel="step", ylabel="training cost above its minimum (nats)")
    finish(figure, path, axis)


READING = """The longer the average, the better it ended here; the longest affords a larger learning rate than the last
parameters do. Without the correction the average of β = 0.999 has not forgotten the start after 2,000
steps: 0.999^2000 is 13 %."""

EXPERIMENT = Experiment(
    "temporal_averaging",
    __doc__,
    measure,
    draw,
    "Excess training cost of the last parameters and of their averages, each at its best learning rate. Line: mean, "
    "band: lowest to highest seed.",
    READING,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
