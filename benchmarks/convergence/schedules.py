"""Learning rate schedules: does what falls end lower than what stays?

Kingma & Ba (2015) take a constant learning rate, and `α/√t` where they prove something. Here: a constant, an
exponential decay to a hundredth, one cycle, and a warm-up followed by a cosine, all from optax; each with its own peak,
tuned alike. Adam on the multilayer network with an L2 penalty of 1e-3, which keeps the cost above zero and the
minibatches noisy.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import optax
from claims import AHEAD, Claim, ahead
from contest import contest
from drawing import bands, finish, style
from figures import panels
from problems import perceptron
from report import Data, Experiment, Result, main
from training import Build, Rate
from tuning import Budget

import adamx

CONSTANT = "constant"


def schedules(steps: int) -> dict[str, optax.Schedule]:
    """Each with the peak 1."""
    return {
        CONSTANT: optax.constant_schedule(1.0),
        "exponential decay": optax.exponential_decay(1.0, steps, 0.01),
        "one cycle": optax.cosine_onecycle_schedule(steps, 1.0),
        "warm-up, cosine": optax.warmup_cosine_decay_schedule(0.0, 1.0, steps // 10, steps),
    }


def adam(schedule: optax.Schedule) -> Build:
    def build(peak: Rate) -> optax.GradientTransformation:
        return adamx.adam(lambda count: peak * schedule(count))

    return build


def measure(quick: bool) -> Result:
    budget = Budget(20, 2) if quick else Budget(1000, 20)
    shapes = schedules(budget.steps)
    problem = perceptron(penalty=1e-3)
    found = contest(problem, {name: adam(schedule) for name, schedule in shapes.items()}, budget)
    claims = [
        Claim(
            f"{name} ends lower than a constant learning rate",
            AHEAD,
            ahead(found.end(name), found.end(CONSTANT)),
            found.ends(name, CONSTANT),
        )
        for name in shapes
        if name != CONSTANT
    ]
    counts = np.arange(0, budget.steps, 5)
    data: dict[str, Any] = {"costs": found.curves(), "rates": {}}
    for name, schedule in shapes.items():
        rates = np.array([float(schedule(count)) for count in counts])
        data["rates"][name] = {"x": counts.tolist(), "y": (found.found[name].rate * rates).tolist()}
    table = found.table(
        "Training cost with the penalty, nats, mean ± s.d. over the seeds; the learning rate is the peak", "cost"
    )
    return Result(found.setting(), [table], claims, data)


def draw(data: Data, path: Path) -> None:
    figure, axes = panels(2, height=3.8)
    for i, (name, drawn) in enumerate(data["rates"].items()):
        axes[0].plot(drawn["x"], drawn["y"], label=name, linewidth=1.4, **style(i))
    axes[0].set(yscale="log", ylim=(1e-5, None), xlabel="step", ylabel="learning rate (units of a parameter)")
    bands(axes[1], data["costs"])
    axes[1].set(yscale="log", xlabel="step", ylabel="training cost with the penalty (nats)")
    finish(figure, path, axes[1])


READING = """The schedules that fall afford a peak three to seven times the best constant learning rate, are behind at
first, and end lower with a far smaller spread over the seeds."""

EXPERIMENT = Experiment(
    "schedules",
    __doc__,
    measure,
    draw,
    "Left: the schedules at their best peaks; right: the training cost with them. Line: mean, band: lowest to highest "
    "seed.",
    READING,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
