"""Do steps stay near the learning rate, within which bound, and do they shrink as the gradients turn to noise?

Kingma & Ba (2015), section 2.1: the effective step `Δ_t = α m̂/√v̂` is bounded by α (1-β1)/√(1-β2) where (1-β1) >
√(1-β2), else by α; in common cases α is about the bound, the radius of a trust region. At the default decay rates the
first case applies: 3.16 α. What holds for every stream is Cauchy-Schwarz, `|Δ_t| <= α √(Σ a_i²/b_i)` with the weights a
and b of the gradients in m̂ and v̂: 7.27 α in the limit, reached by gradients that grow like `(β2/β1)^i`. And m̂/√v̂ is
read as a signal-to-noise ratio, which comes closer to 0 towards an optimum. For uncorrelated noise that stays alike the
root of its mean square is √((1-β1)/(1+β1)) = 0.23; it falls below that only where gradients shrink before v forgets the
larger ones. The network is the multilayer one without a penalty, learning rate 0.001; with minibatches and with the
whole training set.
"""

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from bounds import B1, B2, EPS, FLOOR, PAPER, bounds, worst_stream
from claims import Claim, spread
from drawing import band, finish, style
from figures import panels
from problems import perceptron
from report import Data, Experiment, Result, Table, curve, main
from training import BATCH

import adamx

ALPHA = 1e-3
KINDS = {"minibatches": BATCH, "whole training set": 0}
MOST, QUIET = 0.99, 0.05


def watched(size: int, steps: int, seeds: int) -> dict[str, np.ndarray]:
    """Trains, and says of every step: the cost, the longest |Δ|/α, how many exceed 1, the mean square of Δ/α."""
    problem, direction = perceptron(), adamx.scale_by_adam(B1, B2, EPS)
    everything = jnp.arange(problem.size)

    def step(carry: Any, key: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        params, state = carry
        chosen = jax.random.randint(key, (size,), 0, problem.size) if size else everything
        cost, gradients = jax.value_and_grad(problem.loss)(params, problem.batch(chosen), key)
        u, state = direction.update(gradients, state, params)
        ratio = jnp.abs(jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(u)]))
        alive = jnp.concatenate([v.ravel() for v in jax.tree.leaves(state.nu)]) > 0
        found = {
            "cost": cost,
            "longest": ratio.max(),
            "exceed": jnp.sum(ratio > 1) / jnp.sum(alive),
            "signal": jnp.sum(ratio**2) / jnp.sum(alive),
        }
        return (optax.apply_updates(params, jax.tree.map(lambda x: -ALPHA * x, u)), state), found

    def one(seed: jax.Array) -> dict[str, jax.Array]:
        start, keys = jax.random.split(jax.random.key(seed))
        params = problem.init(start)
        return jax.lax.scan(step, (params, direction.init(params)), jax.random.split(keys, steps))[1]

    found = jax.jit(jax.vmap(one))(jnp.arange(seeds))
    return {name: np.asarray(values, np.float64) for name, values in found.items()}


def measure(quick: bool) -> Result:
    steps, seeds, long = (40, 2, 300) if quick else (2000, 5, 10_000)
    found = {kind: watched(size, steps, seeds) for kind, size in KINDS.items()}
    limit, last, part = bounds(steps), worst_stream(long), max(1, steps // 10)
    signal = {
        k: (np.sqrt(f["signal"][:, :part].mean(1)), np.sqrt(f["signal"][:, -part:].mean(1))) for k, f in found.items()
    }
    rows = [
        [
            kind,
            spread(f["longest"].max(axis=1)),
            f"{f['exceed'].mean():.2%}",
            f"{(f['longest'] / limit).max():.3f}",
            *map(spread, signal[kind]),
        ]
        for kind, f in found.items()
    ]
    header = [
        "",
        "longest / learning rate",
        "longer than the learning rate",
        "longest / bound",
        "in the first tenth",
        "in the last tenth",
    ]
    caption = f"Steps of all parameters; the last two columns are root mean squares of m̂/√v̂ ({FLOOR:.3f} for noise)"
    data = {kind: thinned(f, steps) for kind, f in found.items()} | {
        "bound": {"x": list(range(1, steps + 1)), "y": limit.tolist()}
    }
    setting = f"{steps} steps, seeds 0 to {seeds - 1}; the worst stream has {long:,} gradients."
    return Result(setting, [Table(caption, header, rows)], judge(found, limit, signal, last, long), data)


def thinned(found: dict[str, np.ndarray], steps: int) -> Data:
    """Some 100 points of each curve; the longest step is the longest since the last point."""
    block = max(1, steps // 100)
    x = block * np.arange(1, steps // block + 1)
    blocks = {name: values[:, : len(x) * block].reshape(len(values), -1, block) for name, values in found.items()}
    means = {"cost": blocks["cost"].mean(-1), "signal": np.sqrt(blocks["signal"].mean(-1))}
    return {name: curve(x, values) for name, values in (means | {"longest": blocks["longest"].max(-1)}).items()}


def judge(found: Any, limit: np.ndarray, signal: Any, last: float, long: int) -> list[Claim]:
    longest = max(float(f["longest"].max()) for f in found.values())
    small = 1 - max(float(f["exceed"].mean()) for f in found.values())
    share = max(float((f["longest"] / limit).max()) for f in found.values())
    bound = bounds(long)[-1]
    ends = "; ".join(f"{kind}: from {spread(a)} to {spread(b)}" for kind, (a, b) in signal.items())
    return [
        Claim(
            "steps of a training run are approximately bounded by the learning rate (Kingma & Ba, section 2.1)",
            f"at least {MOST:.0%} of them are no longer, and none is longer than the paper's {PAPER:.2f} times",
            small >= MOST and longest <= PAPER,
            f"{small:.2%} are no longer, the longest is {longest:.2f} times",
        ),
        Claim(
            f"no gradients make a step longer than {PAPER:.2f} times the learning rate (Kingma & Ba, section 2.1)",
            "the worst stream does not",
            last <= PAPER,
            f"it makes one of {last:.3f} times",
        ),
        Claim(
            "no gradients make a step longer than the bound of Cauchy-Schwarz, and the worst stream reaches it",
            "no step of the training exceeds it, and the worst stream's last is within 0.1 % of it",
            share <= 1 + 1e-5 and abs(last / bound - 1) <= 1e-3,  # 1e-5: the rounding of 40 effective terms
            f"in training at most {share:.3f} of it; the worst stream {last:.3f} of {bound:.3f}",
        ),
        Claim(
            "the ratio of signal to noise falls over a training run (Kingma & Ba, section 2.1)",
            "in the last tenth it is below half of that in the first, for every seed, with minibatches and without",
            all(bool((b < a / 2).all()) for a, b in signal.values()),
            ends,
        ),
        Claim(
            "it falls towards 0 (Kingma & Ba, section 2.1)",
            f"in the last tenth it is below {QUIET}, for every seed, with minibatches and without",
            all(bool((b < QUIET).all()) for _, b in signal.values()),
            f"{ends}; of stationary noise it is {FLOOR:.3f}",
        ),
    ]


def draw(data: Data, path: Path) -> None:
    figure, axes = panels(3, height=3.6)
    for axis, (name, label) in zip(
        axes,
        (
            ("longest", "longest step / learning rate"),
            ("signal", "root mean square of m̂/√v̂"),
            ("cost", "loss of the batch (nats)"),
        ),
        strict=True,
    ):
        for i, kind in enumerate(KINDS):
            band(axis, data[kind][name], kind, **style(i))
        axis.set(xlabel="step", ylabel=label, yscale="log")
    axes[0].plot(data["bound"]["x"], data["bound"]["y"], label="bound of Cauchy-Schwarz", **style(2))
    axes[0].axhline(PAPER, label="the paper's bound", **style(3))
    axes[0].axhline(1, color="0.4", linewidth=0.8)
    axes[1].axhline(FLOOR, color="0.4", linewidth=0.8)
    axes[1].text(data["bound"]["x"][-1], FLOOR * 1.03, "uncorrelated noise", ha="right", fontsize="small", color="0.3")
    finish(figure, path, axes[0])


READING = """Nearly all steps are shorter than the learning rate, but not as nearly all as was asked without
minibatches, and the longest, in plain training, exceed both the learning rate and the paper's bound: a gradient that
has been small and then grows, which is what the worst stream does. The ratio of signal to noise falls to below what
stationary noise would give, since the gradients shrink and v remembers those of the last thousand steps; with
minibatches not to the value that was called 0."""

EXPERIMENT = Experiment(
    "trust_region",
    __doc__,
    measure,
    draw,
    "Left: the longest step of any parameter over the learning rate, and two bounds; middle: the size of a typical "
    "one; right: the training loss. Line: mean, band: lowest to highest seed.",
    READING,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
