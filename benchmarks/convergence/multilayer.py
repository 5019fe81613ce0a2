"""A multilayer network: is Adam ahead of the other methods, with dropout and without?

Kingma & Ba (2015), section 6.2 and figure 2, found that Adam converges better than the other methods if there is
dropout. Two hidden layers of 64 rectified linear units on the digits, dropout of one half after each, constant learning
rates. With dropout the cost is that of the noisy network, with the same masks every time.
"""

import sys
from pathlib import Path

from claims import AHEAD, Claim, ahead
from contest import Contest, contest
from drawing import bands, finish
from figures import panels
from methods import ADAM, METHODS
from problems import perceptron
from report import Data, Experiment, Result, main
from tuning import Budget

NOISE = {"without dropout": 0.0, "with dropout": 0.5}


def judge(noise: str, found: Contest) -> Claim:
    others = [name for name in found.found if name != ADAM]
    beaten = [name for name in others if ahead(found.end(ADAM), found.end(name))]
    return Claim(
        f"Adam converges better than every other method, {noise} (Kingma & Ba, section 6.2)",
        f"Adam against each: {AHEAD}",
        beaten == others,
        f"ahead of {', '.join(beaten) or 'none'}; {found.ends(*found.found)}",
    )


def measure(quick: bool) -> Result:
    budget = Budget(20, 2) if quick else Budget(1000, 20, trials=2)
    found = {noise: contest(perceptron(dropout=rate), METHODS, budget) for noise, rate in NOISE.items()}
    tables = [
        f.table(f"Training cost {noise}, nats, mean ± s.d. over the seeds", "cost", median=True)
        for noise, f in found.items()
    ]
    claims = [judge(noise, f) for noise, f in found.items()]
    return Result(found["with dropout"].setting(), tables, claims, {noise: f.curves() for noise, f in found.items()})


def draw(data: Data, path: Path) -> None:
    figure, axes = panels(2, height=3.8)
    for axis, (noise, curves) in zip(axes, data.items(), strict=True):
        bands(axis, curves)
        axis.set(title=noise, yscale="log", xlabel="step", ylabel="training cost (nats)")
    finish(figure, path, axes[0])


READING = """With dropout Adam is well ahead of SGD and AdaGrad, as in the paper, and level with RMSProp and
AdaDelta, which were ahead of it early on; "better than all" does not hold. Without dropout the network
fits its data: Adam and SGD end together, AdaGrad far behind, and RMSProp and AdaDelta jump in one seed
or another, which decides their means and not their medians."""

EXPERIMENT = Experiment(
    "multilayer",
    __doc__,
    measure,
    draw,
    "Training cost of a network with two hidden layers, each method at its best learning rate; line: mean, band: "
    "lowest to highest seed.",
    READING,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
