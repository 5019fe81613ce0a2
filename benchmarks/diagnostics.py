"""What a probe shows, in two trainings, and what it costs.

    python benchmarks/diagnostics.py [--quick] [--untimed] [--out FOLDER]

Spike: a network that learns a curve by heart, at a constant rate of 1e-2. v forgets how large gradients were; where
they grow faster than v remembers the steps are too long, and the loss jumps. The table counts whether RMS(g/√v̂) is over
2 before, at or after the onset. Stall: a perceptron on digits in bfloat16,
its rate falling to a fiftieth. Cost: training steps on digits, and a bare step of the optimizer, with and without the
probe, round by round.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import figures
import jax
import jax.numpy as jnp
import numpy as np
import optax
from harness import headline, interleave, per_call, ratios, table
from tasks import Task, convolutional, curve, digits

import adamx

STEPS, QUICK_STEPS, SEEDS = 4000, 400, 5
HIGH, JUMP, WINDOW = 2.0, 3.0, 100
BEFORE, BEHIND = 30, 50
MEAN = 20


def probed(rate: Any, *probes: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.chain(adamx.scale_by_moments(), *probes, adamx.bias_correction(), adamx.scale_by_lr(rate))


def trained(task: Task, tx: Any, seed: int, steps: int, dtype: Any = jnp.float32) -> tuple[np.ndarray, np.ndarray]:
    """The loss and the table of the probe after every step."""
    params = jax.tree.map(lambda p: p.astype(dtype), task.init(jax.random.key(seed)))

    def step(carry: Any, key: jax.Array) -> tuple[Any, Any]:
        params, state = carry
        value, gradients = jax.value_and_grad(task.loss)(params, task.batch(key))
        params, state = adamx.step(tx, gradients, state, params)
        found = next(s for s in jax.tree.leaves(state, is_leaf=is_probe) if is_probe(s))
        return (params, state), (value, found.measured)

    keys = jax.random.split(jax.random.key(seed + 1000), steps)
    _, history = jax.jit(lambda c: jax.lax.scan(step, c, keys))((params, tx.init(params)))
    return tuple(np.asarray(x) for x in history)


def is_probe(node: Any) -> bool:
    return isinstance(node, adamx.diagnostics.ProbeState)


def column(field: str) -> int:
    return adamx.diagnostics.Measurement._fields.index(field) - 1


def first_of_each(high: np.ndarray, quiet: int) -> list[int]:
    """The steps from the WINDOW-th on at which something is true that was not in the `quiet` steps before."""
    return [int(t) for t in np.flatnonzero(high) if t >= WINDOW and not high[t - quiet : t].any()]


def onsets(loss: np.ndarray) -> list[int]:
    """The first step of every spike: the loss is over three times the median of the hundred steps before it."""
    median = np.array([np.median(loss[max(t - WINDOW, 0) : t + (t == 0)]) for t in range(len(loss))])
    return first_of_each(loss > JUMP * median, WINDOW)


class Panel(NamedTuple):
    """One of several over each other: curves by name, a level to compare with, a step that is marked and its name."""

    label: str
    scale: str
    curves: dict[str, np.ndarray]
    level: float | None = None
    mark: tuple[int, str] | None = None
    limits: tuple[float | None, float | None] = (None, None)


def draw(path: Path, panels: list[Panel], start: int = 0) -> None:
    """The panels, which share the step."""
    figure, axes = figures.panels(rows=len(panels), height=2.3, sharex=True)
    for axis, panel in zip(axes, panels, strict=True):
        for (name, values), colour in zip(panel.curves.items(), figures.COLOURS, strict=False):
            axis.plot(range(start, start + len(values)), values, label=name, color=colour, linewidth=1.2)
        if panel.level is not None:
            axis.axhline(panel.level, color="0.4", linewidth=1, linestyle="--")
        axis.set(ylabel=panel.label, yscale=panel.scale, ylim=panel.limits)
        if panel.mark is not None:
            (step, words), color = panel.mark, "0.2"
            axis.axvline(step, color=color, linewidth=1.2)
            early = 3 * (step - start) < len(values)
            place = {"xycoords": axis.get_xaxis_transform(), "textcoords": "offset points", "color": color}
            axis.annotate(words, (step, 0.9), (5 if early else -5, 0), ha="left" if early else "right", **place)
        if len(panel.curves) > 1:
            axis.legend(loc="best")
    axes[-1].set_xlabel("step")
    figures.save(figure, path)


def spike_experiment(steps: int, out: Path) -> None:
    """Where RMS(g/√v̂) goes over 2 in some leaf: from 30 steps before an onset to 50 behind it, or at none."""
    rows, task = [], curve()
    for seed in range(SEEDS if steps == STEPS else 1):
        loss, measured = trained(task, probed(1e-2, adamx.diagnostics.probe(every=1)), seed, steps)
        worst = measured[:, :, column("spike")].max(axis=1)
        starts, crossings = onsets(loss), first_of_each(worst > HIGH, BEFORE)
        of = {t: [c - t for c in crossings if -BEFORE <= c - t <= BEHIND] for t in starts}
        lags = [lag[0] for lag in of.values() if lag]
        to_peak = [int(loss[t : t + BEHIND].argmax()) - lag[0] for t, lag in of.items() if lag]
        sides = [sum(lag < 0 for lag in lags), lags.count(0), sum(lag > 0 for lag in lags), len(of) - len(lags)]
        medians = [f"{np.median(x):.3g}" if x else "" for x in (lags, to_peak)]
        others = len(crossings) - sum(map(len, of.values()))
        rows.append([*map(str, (seed, len(starts), *sides)), *medians, str(others)])
        if seed == 0 and starts:
            onset = starts[len(starts) // 2]
            shown = slice(max(onset - 60, 0), onset + 90)
            level = JUMP * np.median(loss[onset - WINDOW : onset])
            crossing = next((t for t in crossings if onset - BEFORE <= t <= onset + BEHIND), None)
            panels = [
                Panel("loss (mean square)", "log", {"": loss[shown]}, level, (onset, f"onset, step {onset}")),
                Panel(
                    r"largest RMS of $g/\sqrt{\hat v}$",
                    "log",
                    {"": worst[shown]},
                    HIGH,
                    crossing and (crossing, f"above {HIGH:g}, step {crossing}"),
                ),
            ]
            draw(out / "diagnostics_spike.png", panels, shown.start)
    counts = [sum(int(row[i]) for row in rows) for i in (*range(1, 6), 8)]
    rows.append(["all", *map(str, counts[:5]), "", "", str(counts[5])])
    header = ["seed", "onsets", "RMS over 2 before", "at", "after", "never", "steps after", "to peak", "at no onset"]
    print(table(header, rows), "", sep="\n")


def smooth(values: np.ndarray) -> np.ndarray:
    """Means over MEAN steps."""
    return np.convolve(values, np.ones(MEAN) / MEAN, "valid")


def stall_experiment(task: Task, steps: int, out: Path) -> None:
    rate = optax.cosine_decay_schedule(2e-3, steps, alpha=0.02)
    tx = probed(rate, adamx.diagnostics.probe(rate, every=1))
    runs = {
        "bfloat16 parameters": (tx, jnp.bfloat16),
        "with master weights": (adamx.with_master_weights(tx), jnp.bfloat16),
    }
    loss, stalled = {}, {}
    for name, (one, dtype) in runs.items():
        losses, measured = trained(task, one, 0, steps, dtype)
        loss[name], stalled[name] = losses, measured[:, :, column("stalled")].mean(axis=1)
    half = int(np.flatnonzero(smooth(stalled["bfloat16 parameters"]) > 0.5)[0])
    mark, low = (half, f"half stall, step {half}"), min(smooth(values).min() for values in loss.values())
    curves = ({name: smooth(values) for name, values in found.items()} for found in (loss, stalled))
    draw(
        out / "diagnostics_stall.png",
        [
            Panel("loss (nats)", "linear", next(curves), None, mark, (low - 0.01, low + 0.14)),
            Panel("share that stalls", "linear", next(curves), None, mark, (-0.03, 1.03)),
        ],
    )
    ends = [
        [name, f"{smooth(loss[name])[-1]:.4f}", f"{stalled[name][0]:.2f}", f"{stalled[name][-1]:.2f}"] for name in runs
    ]
    print(table(["parameters", "loss at the end", "stalled at first", "stalled at the end"], ends))


def cost(task: Task, rounds: int) -> None:
    def contender(build: Callable[[], Any], params: Any, task: Task | None) -> Callable[[], float]:
        tx = build()

        def one(params: Any, state: Any, key: jax.Array) -> Any:
            g = params if task is None else jax.grad(task.loss)(params, task.batch(key))
            return adamx.step(tx, g, state, params)

        step, keys = jax.jit(one, donate_argnums=(0, 1)), list(jax.random.split(jax.random.key(0), 100))
        carry = [jax.tree.map(jnp.copy, params), tx.init(params)]

        def hundred() -> None:
            for key in keys:
                carry[:] = step(*carry, key)
            jax.block_until_ready(carry)

        hundred()
        timed = per_call(hundred)
        return lambda: timed(1)

    large, network = {f"{i}": jnp.ones((512, 512)) for i in range(4)}, convolutional(task)
    cases = {
        "digits, convolutions": (network.init(jax.random.key(0)), network),
        "digits, perceptron": (task.init(jax.random.key(0)), task),
        "bare step, 1e6 parameters": (large, None),
    }
    rows = []
    for name, (params, learned) in cases.items():
        builds = {
            "bare": lambda: probed(1e-3),
            "bare again": lambda: probed(1e-3),
            "probe()": lambda: probed(1e-3, adamx.diagnostics.probe()),
            "probe(rate)": lambda: probed(1e-3, adamx.diagnostics.probe(1e-3)),
        }
        seconds = interleave({k: contender(build, params, learned) for k, build in builds.items()}, rounds)
        found = ratios(seconds, "bare")
        rows.append([name, *(str(found[k]) for k in builds if k != "bare")])
    print(table(["time over the step without", "bare again", "probe()", "probe(learning_rate)"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps, one seed, one round")
    parser.add_argument("--untimed", action="store_true", help="the spikes and the stall, not what the probe costs")
    parser.add_argument("--out", type=Path, default=Path(), help="where the two figures go")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    steps, task = QUICK_STEPS if arguments.quick else STEPS, digits()
    print(headline(), "")
    spike_experiment(steps, arguments.out)
    stall_experiment(task, steps, arguments.out)
    if not arguments.untimed:
        cost(task, 1 if arguments.quick else 15)


if __name__ == "__main__":
    main()
