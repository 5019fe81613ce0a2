"""The loss multiplied by a number from 1e-6 to 1e6: does Adam train alike?

Kingma & Ba (2015), section 2.1: the scale of the gradients does not change the step, since `(c m̂)/√(c² v̂) = m̂/√v̂`,
if eps is 0. The gradient is multiplied by c, as it is if the loss is; and, a stronger test, every parameter's gradient
by a factor of its own. Adam at the learning rate 0.001 with eps = 1e-30 and with the default 1e-8, SGD with Nesterov's
momentum at 0.1, on the multilayer network.
"""

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from claims import Claim, spread
from drawing import band, finish, style
from figures import panels
from problems import perceptron
from report import Data, Experiment, Result, Table, curve, main
from training import costs, end, trainer

import adamx

POWERS = np.arange(-6, 7, 2)
NO_EPS, DEFAULT, SGD = "Adam, eps = 1e-30", "Adam, eps = 1e-8", "SGD, Nesterov"
WITHIN = 0.01
METHODS = {
    NO_EPS: adamx.adam(1e-3, eps=1e-30),
    DEFAULT: adamx.adam(1e-3),
    SGD: optax.sgd(0.1, momentum=0.9, nesterov=True),
}


def scaled(tx: optax.GradientTransformation) -> Any:
    """The method behind a multiplication of the gradients by a number, given for a lane."""
    return lambda c: optax.chain(optax.stateless(lambda g, _: jax.tree.map(lambda x: c * x, g)), tx)


def diagonal(tx: optax.GradientTransformation) -> Any:
    """The method behind factors between 1e-6 and 1e6, one for each parameter, multiplied by the lane's number."""

    def factors(g: Any, _: Any) -> Any:
        leaves, structure = jax.tree.flatten(g)
        keys = jax.random.split(jax.random.key(1), len(leaves))
        powers = [jax.random.uniform(k, x.shape, minval=-6, maxval=6) for k, x in zip(keys, leaves, strict=True)]
        return structure.unflatten([x * 10.0**p for x, p in zip(leaves, powers, strict=True)])

    return lambda c: optax.chain(optax.stateless(factors), scaled(tx)(c))


def measure(quick: bool) -> Result:
    steps, every, seeds = (20, 5, np.arange(2)) if quick else (1000, 20, np.arange(5))
    factors, binary = 10.0**POWERS, 2.0 ** np.array([-20, -13, -7, 7, 13, 20])
    problem = perceptron()
    curves, exact = {}, {}
    for name, tx in METHODS.items():
        lanes = trainer(problem, scaled(tx), steps, every)
        both = costs(lanes, np.concatenate([factors, binary])[:, None], seeds)
        curves[name], exact[name] = both[: len(factors)], both[len(factors) :]
    own = costs(trainer(problem, diagonal(METHODS[NO_EPS]), steps, every), 1.0, seeds)
    one = int(np.argmin(np.abs(POWERS)))
    ends = {name: end(c) for name, c in curves.items()}
    ratio = {name: e.mean(axis=1) / e[one].mean() for name, e in ends.items()}
    rows = [[name, *(spread(x) for x in e)] for name, e in ends.items()]
    rows.append([f"{NO_EPS}, own factors", *(spread(end(own)) if i == one else "" for i in range(len(POWERS)))])
    equal = bool((exact[NO_EPS] == curves[NO_EPS][one]).all())
    claims = [invariant(name, ratio[name]) for name in (NO_EPS, DEFAULT)]
    claims += [
        Claim(
            f"{NO_EPS}: powers of two from 2^-20 to 2^20 change nothing at all",
            "training costs are equal to the bit at every evaluation, for every seed",
            equal,
            f"largest difference {np.abs(exact[NO_EPS] - curves[NO_EPS][one]).max():.1g} nats",
        ),
        Claim(
            f"{NO_EPS}: a factor of its own for each parameter, from 1e-6 to 1e6, changes nothing (the same)",
            f"the mean training cost at the end is within {WITHIN:.0%}",
            bool(abs(end(own).mean() / ends[NO_EPS][one].mean() - 1) <= WITHIN),
            f"{end(own).mean() / ends[NO_EPS][one].mean() - 1:+.3%}",
        ),
    ]
    points = every * np.arange(1, steps // every + 1)
    data = {name: {f"1e{p}": curve(points, c) for p, c in zip(POWERS, cs, strict=True)} for name, cs in curves.items()}
    table = Table(
        "Training cost at the end by the factor, nats, mean ± s.d. over the seeds",
        ["", *(f"1e{p}" for p in POWERS)],
        rows,
    )
    return Result(f"{steps} steps, seeds 0 to {seeds[-1]}.", [table], claims, data)


def invariant(name: str, ratio: np.ndarray) -> Claim:
    return Claim(
        f"{name}: the scale of the loss changes nothing (Kingma & Ba, section 2.1)",
        f"the mean training cost at the end is within {WITHIN:.0%} of that with factor 1, for every factor",
        bool((np.abs(ratio - 1) <= WITHIN).all()),
        ", ".join(f"1e{p}: {r - 1:+.2%}".replace("-0.00", "+0.00") for p, r in zip(POWERS, ratio, strict=True)),
    )


def draw(data: Data, path: Path) -> None:
    figure, axes = panels(3, height=3.6, sharey=True)
    for axis, (name, curves) in zip(axes, data.items(), strict=True):
        for i, (factor, drawn) in enumerate(curves.items()):
            band(axis, drawn, f"loss times {factor}", **style(i))
        axis.set(title=name, xlabel="step", yscale="log", ylim=(2e-4, 10))
    axes[0].set_ylabel("training cost (nats)")
    finish(figure, path, axes[0])


READING = """With eps out of the way the invariance is exact, to the bit for powers of two. The default eps of 1e-8
is small beside the gradients of this network as they are, and not beside those of a loss that is 1e4 or
1e6 times smaller: the cost then ends 13 % higher and 4.6 times as high. SGD's learning rate is tied to the scale
of the loss: two powers of ten away from where it was set, it crawls or fails."""

EXPERIMENT = Experiment(
    "scale_invariance",
    __doc__,
    measure,
    draw,
    "Training cost, of the loss before it is multiplied; curves that lie on one another are one. What is missing has "
    "diverged. Line: mean, band: lowest to highest seed.",
    READING,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
