"""A variational auto-encoder: is training unstable without bias correction if β2 is close to 1?

Kingma & Ba (2015), section 6.4 and figure 4, found that without the correction training becomes unstable for β2 close
to 1, at first above all; that the best results come from small 1-β2 together with the correction; and that Adam does
as well as or better than RMSProp whatever the hyperparameters, by which it means Adam without the correction. The grid
is close to the paper's: β1 in {0, 0.9}, β2 in {0.99, 0.999, 0.9999}, learning rates from 1e-4 to 0.1, each with
`bias_correction` as stage 2 and with `uncorrected`. One hidden layer of 64 softplus units on either side of 8 Gaussian
latents, pixels as Bernoulli means, 10 epochs and 100, as there.
"""

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optax
from claims import AHEAD, Claim, ahead, spread
from drawing import band, finish, style
from figures import panels
from problems import digits
from report import Data, Experiment, Result, Table, curve, main
from training import costs, trainer
from variational import autoencoder

import adamx

DECAYS = tuple(itertools.product((0.0, 0.9), (0.99, 0.999, 0.9999)))
STAGES = {"corrected": adamx.bias_correction, "uncorrected": adamx.uncorrected}
WORSE, DEFAULT = 0.01, 1e-3
SOURCE = "(Kingma & Ba, section 6.4)"


def adam(stage: Any) -> Any:
    """Adam by hand, with one or the other second stage, from α, β1 and β2."""

    def build(hyper: Any) -> optax.GradientTransformation:
        alpha, b1, b2 = hyper
        return optax.chain(adamx.scale_by_moments(b1, b2), stage(), adamx.scale_by_lr(alpha))

    return build


def sweep(steps: int, every: int, rates: np.ndarray, seeds: np.ndarray) -> dict[str, np.ndarray]:
    """Training costs with each stage, `(decays, learning rates, seeds, points)`."""
    found = {}
    for name, stage in STAGES.items():
        lanes = trainer(autoencoder(), adam(stage), steps, every)
        found[name] = np.stack([costs(lanes, (rates[:, None], b1, b2), seeds) for b1, b2 in DECAYS])
    return found


def best(ends: np.ndarray) -> tuple[int, np.ndarray]:
    """Of `(learning rates, seeds)`: the learning rate with the lowest mean, and its costs."""
    index = int(np.argmin(ends.mean(axis=-1)))
    return index, ends[index]


def table(epochs: int, ends: dict[str, np.ndarray], rates: np.ndarray) -> Table:
    """The best learning rate with and without correction, and what dropping the correction does at the former."""
    rows = []
    for (b1, b2), corrected, plain in zip(DECAYS, ends["corrected"], ends["uncorrected"], strict=True):
        (i, ours), (j, theirs) = best(corrected), best(plain)
        same = spread(plain[i])
        rows.append([f"{b1}, {b2}", spread(ours), f"{rates[i]:.2g}", spread(theirs), f"{rates[j]:.2g}", same])
    header = [
        "β1, β2",
        "corrected, best",
        "its learning rate",
        "uncorrected, best",
        "its learning rate",
        "uncorrected, at the learning rate of the corrected",
    ]
    return Table(
        f"Minus the lower bound after {epochs} epochs, nats an image, mean ± s.d. over the seeds", header, rows
    )


def unstable(ends: np.ndarray, rates: np.ndarray, lowest: float) -> int:
    """Runs that diverged or ended above twice the lowest cost, at β2 >= 0.999 and learning rates that are not small."""
    slow = np.array([b2 >= 0.999 for _, b2 in DECAYS])
    return int((ends[np.ix_(slow, rates >= 0.99 * DEFAULT)] > 2 * lowest).sum())


def judge(epochs: int, ends: dict[str, np.ndarray], rates: np.ndarray) -> list[Claim]:
    corrected, plain = ends["corrected"], ends["uncorrected"]
    top = {name: best(values.reshape(-1, values.shape[-1]))[1] for name, values in ends.items()}
    chosen = [best(c)[0] for c in corrected]
    loss = np.array([p[i].mean() / c[i].mean() for c, p, i in zip(corrected, plain, chosen, strict=True)]).reshape(2, 3)
    equal = corrected.mean(axis=-1) <= (1 + WORSE) * plain.mean(axis=-1)
    grows = bool(((loss[:, 1:] > loss[:, :-1]) | np.isinf(loss[:, 1:])).all())
    failed = {name: unstable(values, rates, top["corrected"].mean()) for name, values in ends.items()}
    runs = 4 * int((rates >= 0.99 * DEFAULT).sum()) * corrected.shape[-1]
    return [
        Claim(
            f"without bias correction and with β2 close to 1 training is unstable, after {epochs} epochs {SOURCE}",
            f"with β2 >= 0.999 and learning rates from {DEFAULT}, more runs end above twice the best cost or diverge "
            "without than with correction (written after a first look at the figure)",
            failed["uncorrected"] > failed["corrected"],
            f"of {runs} runs, {failed['uncorrected']} without and {failed['corrected']} with",
        ),
        Claim(
            f"the best result of the grid is reached with bias correction, after {epochs} epochs {SOURCE}",
            f"best corrected against best uncorrected: {AHEAD}",
            ahead(top["corrected"], top["uncorrected"]),
            ", ".join(f"{name} {spread(values)}" for name, values in top.items()),
        ),
        Claim(
            f"dropping the correction hurts more the closer β2 is to 1, after {epochs} epochs {SOURCE}",
            "at the best learning rate with correction, the cost without over the cost with it grows with β2, for "
            "both β1",
            grows,
            "; ".join(
                f"β1 = {b1}: {', '.join(f'{x:.4g}' for x in row)}" for b1, row in zip((0.0, 0.9), loss, strict=True)
            ),
        ),
        Claim(
            f"corrected is equal or better regardless of hyperparameters, after {epochs} epochs {SOURCE}",
            f"in every cell of β1, β2 and learning rate its mean is at most {WORSE:.0%} higher",
            bool(equal.all()),
            f"in {equal.sum()} of {equal.size} cells",
        ),
    ]


def measure(quick: bool) -> Result:
    rates = 10.0 ** np.arange(-4, -0.9, 1.5 if quick else 0.5)
    seeds = np.arange(2 if quick else 5)
    epoch = len(digits()[0]) // 64
    lengths = (1, 2) if quick else (10, 100)
    found = sweep(lengths[-1] * epoch, lengths[0] * epoch, rates, seeds)
    ends = {n: {name: values[..., n // lengths[0] - 1] for name, values in found.items()} for n in lengths}
    data = {
        "rates": rates.tolist(),
        "epochs": {str(n): {name: curves_over_rates(rates, v) for name, v in e.items()} for n, e in ends.items()},
    }
    setting = (
        f"{lengths[-1]} epochs of {epoch} steps, seeds 0 to {seeds[-1]}, {len(rates)} learning rates from 1e-4 to 0.1."
    )
    tables = [table(n, e, rates) for n, e in ends.items()]
    return Result(setting, tables, [claim for n, e in ends.items() for claim in judge(n, e, rates)], data)


def curves_over_rates(rates: np.ndarray, ends: np.ndarray) -> list[dict[str, list[float | None]]]:
    """For each pair of decay rates the cost over α."""
    return [curve(rates, values.T) for values in ends]


def draw(data: Data, path: Path) -> None:
    figure, axes = panels(3, len(data["epochs"]), height=2.9, sharey="row", sharex=True)
    for row, (epochs, found) in enumerate(data["epochs"].items()):
        lowest = np.nanmin([np.array(c["mean"], float) for curves in found.values() for c in curves])
        for i, (b1, b2) in enumerate(DECAYS):
            axis = axes[3 * row + i % 3]
            for j, name in enumerate(STAGES):
                drawn = style(2 * j + (b1 > 0))
                band(axis, found[name][i], f"β1 = {b1}, {name}", **drawn)
            axis.set(title=f"β2 = {b2}, {epochs} epochs", xscale="log", ylim=(0.97 * lowest, 2 * lowest))
        axes[3 * row].set_ylabel("cost (nats an image)")
    axes[-2].set_xlabel("learning rate (units of a parameter)")
    finish(figure, path, axes[0])


READING = """What the correction buys here is a range of learning rates that work, not a better optimum. Without it the
first step is (1-β1)/√(1-β2) times as long: 10 times at β1 = 0.9 and β2 = 0.9999, 100 times at β1 = 0. At small learning
rates that is a head start, which is why uncorrected Adam is lower in the left of the figure and the claim "regardless
of hyperparameters" fails; at large ones it is a divergence, at learning rates that fall as β2 rises. Each at its own
best learning rate, the two end alike. The vast numbers in the last column are runs that went far away and did not come
back."""

EXPERIMENT = Experiment(
    "autoencoder",
    __doc__,
    measure,
    draw,
    "Cost of the auto-encoder over the learning rate, with bias correction and without; line: mean, band: lowest to "
    "highest seed. What lies above the upper edge has hardly learned, or has diverged.",
    READING,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
