"""On convex losses that are drawn alike: does Adam's regret grow like √T if its learning rate falls like 1/√t?

Kingma & Ba (2015), theorem 4.1 and corollary 4.2: regret O(√T) with `α_t = α/√t` and `β1,t = β1 λ^(t-1)`. The loss is
`Σ_i w_i |x_i - c_i|` in 10 dimensions on [-1, 1], with weights from 0.01 to 100 and c drawn anew for each loss, from a
Laplace distribution around a centre of its own for each dimension; the best fixed point is the median of what came. It
is not the proof for every stream, which has a gap: see the counterexample. α = 0.1, β1 = 0.9, β2 = 0.999, λ = 0.9999.
"""

import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from claims import Claim, spread
from drawing import bands, finish
from figures import panels
from online import PLAYERS, Player, play, slope
from report import Data, Experiment, Result, Table, curve, main

import adamx

DIMENSIONS, ALPHA, B1, B2 = 10, 0.1, 0.9, 0.999
WEIGHTS = np.geomspace(0.01, 100, DIMENSIONS)
THEOREM = "learning rate falls like 1/√t, β1 decays"
WAYS = {
    THEOREM: PLAYERS["Adam, β1 decays"],
    "learning rate falls like 1/√t": PLAYERS["Adam"],
    "constant learning rate": Player(adamx.adam, power=0.0),
}
ROOT, LINEAR = 0.55, 0.9


def stream(seed: int, total: int) -> np.ndarray:
    """The points c, `(total, dimensions)`, within the box."""
    generator = np.random.default_rng(seed)
    centre = generator.uniform(-0.7, 0.7, DIMENSIONS)
    return np.clip(generator.laplace(centre, 0.2, (total, DIMENSIONS)), -1, 1).astype(np.float32)


def best(points: np.ndarray) -> float:
    """The least that a fixed point would have paid: the median's loss."""
    return float((WEIGHTS * np.abs(points - np.median(points, axis=0)).astype(np.float64)).sum())


def measure(quick: bool) -> Result:
    blocks, steps, seeds = (100, 20, 5) if quick else (2000, 100, 5)
    chosen = np.unique(np.geomspace(blocks // 100, blocks, 21).astype(int))
    total = steps * chosen
    points = np.stack([stream(seed, blocks * steps) for seed in range(seeds)])
    floor = np.array([[best(own[:n]) for n in total] for own in points])
    weights = jnp.asarray(WEIGHTS, jnp.float32)

    def loss(x: jax.Array, c: jax.Array) -> jax.Array:
        return jnp.sum(weights * jnp.abs(x - c))

    regret = {}
    for name, player in WAYS.items():
        run = functools.partial(play, player, alpha=ALPHA, b1=B1, b2=B2, x=jnp.zeros(DIMENSIONS))
        lanes = jax.jit(jax.vmap(lambda c, run=run: run((loss, c))))
        paid = np.asarray(lanes(jnp.asarray(points.reshape(seeds, blocks, steps, -1))), np.float64)
        regret[name] = (steps * np.cumsum(paid, axis=1))[:, chosen - 1] - floor
    slopes = {name: np.array([slope(total, own) for own in r]) for name, r in regret.items()}
    table = Table(
        f"Regret of Adam after T = {total[-1]:,} losses, and the exponent p of T^p that fits from T/100 on",
        ["", "regret", "regret / √T", "exponent"],
        [
            [name, spread(r[:, -1]), spread(r[:, -1] / total[-1] ** 0.5), spread(slopes[name])]
            for name, r in regret.items()
        ],
    )
    claims = [
        Claim(
            "Adam's regret is O(√T) if its learning rate falls like 1/√t and β1 decays, on this stream (corollary 4.2)",
            f"the exponent is below {ROOT} in the mean over the seeds",
            bool(slopes[THEOREM].mean() < ROOT),
            f"exponent {spread(slopes[THEOREM])}",
        ),
        Claim(
            "the decay of the learning rate is needed: with a constant one the regret grows linearly",
            f"the exponent is above {LINEAR} in the mean over the seeds",
            bool(slopes["constant learning rate"].mean() > LINEAR),
            f"exponent {spread(slopes['constant learning rate'])}",
        ),
    ]
    return Result(f"{total[-1]:,} losses, seeds 0 to {seeds - 1}.", [table], claims, data(total, regret))


def data(total: np.ndarray, regret: dict[str, np.ndarray]) -> Data:
    return {name: curve(total, own) for name, own in regret.items()}


def draw(data: Data, path: Path) -> None:
    figure, (axis,) = panels(height=4.2)
    bands(axis, data)
    first = data[THEOREM]
    guide = first["mean"][0] * (np.array(first["x"]) / first["x"][0]) ** 0.5
    axis.plot(first["x"], guide, color="0.5", linewidth=0.8, label="∝ √T")
    axis.set(xscale="log", yscale="log", xlabel="T, number of losses", ylabel="regret (units of the loss)")
    finish(figure, path, axis)


READING = """The exponent is a little below one half because the first steps, from the wrong place, still weigh in.
Whether β1 decays makes no difference here; the decay of the learning rate makes all of it."""

EXPERIMENT = Experiment(
    "online_rate",
    __doc__,
    measure,
    draw,
    "Regret of Adam on a convex stream; in these axes a straight line is a power of T, its slope the exponent. Line: "
    "mean, band: lowest to highest seed.",
    READING,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
