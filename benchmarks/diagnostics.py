"""What a probe shows, in two trainings, and what it costs.

    python benchmarks/diagnostics.py [--quick] [--spikes] [--out FOLDER]

Spike: a network that learns a curve by heart, at a constant rate of 1e-2. v forgets how large gradients were; where
they grow faster than v remembers the steps are too long, and the loss jumps. The table counts whether RMS(g/√v̂) is over
2 before, at or after the onset. Stall: a perceptron on digits in bfloat16,
its rate falling to a fiftieth. Cost: training steps on digits, and a bare step of the optimizer, with and without the
probe, round by round.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from figures import COLOURS
from harness import headline, interleave, per_call, ratios, table
from tasks import Task, dense, digits

import adamx

STEPS, QUICK_STEPS, SEEDS = 4000, 400, 5
HIGH, JUMP, WINDOW = 2.0, 3.0, 100
BEFORE, BEHIND = 30, 50


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


def curve() -> Task:
    """A wave learned by heart, always all of it, by a network of two hidden layers: from 0.5 down to 1e-5."""
    x = jnp.linspace(-1, 1, 128)[:, None]
    y, sizes = jnp.sin(3 * jnp.pi * x), (1, 64, 64, 1)

    def init(key: jax.Array) -> Any:
        pairs = zip(jax.random.split(key, 3), sizes[:-1], sizes[1:], strict=True)
        return {f"layer_{i}": {"w": dense(k, n, m), "b": jnp.zeros(m)} for i, (k, n, m) in enumerate(pairs)}

    def loss(params: Any, batch: Any) -> jax.Array:
        hidden = jnp.tanh(3 * x @ params["layer_0"]["w"] + params["layer_0"]["b"])
        hidden = jnp.tanh(hidden @ params["layer_1"]["w"] + params["layer_1"]["b"])
        return jnp.mean((hidden @ params["layer_2"]["w"] + params["layer_2"]["b"] - y) ** 2)

    return Task(init, loss, lambda _: None, None)


def first_of_each(high: np.ndarray, quiet: int) -> list[int]:
    """The steps from the WINDOW-th on at which something is true that was not in the `quiet` steps before."""
    return [int(t) for t in np.flatnonzero(high) if t >= WINDOW and not high[t - quiet : t].any()]


def onsets(loss: np.ndarray) -> list[int]:
    """The first step of every spike: the loss is over three times the median of the hundred steps before it."""
    median = np.array([np.median(loss[max(t - WINDOW, 0) : t + (t == 0)]) for t in range(len(loss))])
    return first_of_each(loss > JUMP * median, WINDOW)


def draw(path: Path, panels: list[tuple[str, str, dict[str, np.ndarray], float | None]], start: int = 0) -> None:
    """Panels over each other that share the step: label, scale, curves, and a line to compare with."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(7, 2.3 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True)
    for axis, (label, scale, curves, bar) in zip(axes, panels, strict=True):
        for (name, values), colour in zip(curves.items(), COLOURS, strict=False):
            axis.plot(range(start, start + len(values)), values, label=name, color=colour, linewidth=0.9)
        if bar is not None:
            axis.axhline(bar, color="0.4", linewidth=0.8, linestyle="--")
        axis.set(ylabel=label, yscale=scale)
        axis.grid(alpha=0.3)
        if len(curves) > 1:
            axis.legend(frameon=False, fontsize="small", loc="best")
    axes[-1].set_xlabel("step")
    figure.savefig(path, dpi=150)


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
            panels = [
                ("loss", "log", {"loss": loss[shown]}, JUMP * np.median(loss[onset - WINDOW : onset])),
                (r"largest RMS of $g/\sqrt{\hat v}$", "log", {"spike": worst[shown]}, HIGH),
            ]
            draw(out / "diagnostics_spike.png", panels, shown.start)
    counts = [sum(int(row[i]) for row in rows) for i in (*range(1, 6), 8)]
    rows.append(["all", *map(str, counts[:5]), "", "", str(counts[5])])
    header = ["seed", "onsets", "RMS over 2 before", "at", "after", "never", "steps after", "to peak", "at no onset"]
    print(table(header, rows), "", sep="\n")


def convolutional(task: Task) -> Task:
    """Digits for two convolutions and two linear layers, as in examples/train_digits.py."""

    def init(key: jax.Array) -> Any:
        keys = jax.random.split(key, 4)
        kernels = [
            jax.random.normal(k, shape) / 10 for k, shape in zip(keys[:2], ((3, 3, 1, 32), (3, 3, 32, 64)), strict=True)
        ]
        return {"conv": kernels, "in": dense(keys[2], 256, 128), "out": dense(keys[3], 128, 10)}

    def loss(params: Any, batch: Any) -> jax.Array:
        x, labels = batch[0].reshape(-1, 8, 8, 1), batch[1]
        for kernel in params["conv"]:
            form = ("NHWC", "HWIO", "NHWC")
            x = jax.nn.relu(jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=form))
        logits = jax.nn.relu(x.reshape(len(x), -1) @ params["in"]) @ params["out"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return task._replace(init=init, loss=loss)


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
        loss[name] = np.convolve(losses, np.ones(20) / 20, "valid")
        stalled[name] = measured[:, :, column("stalled")].mean(axis=1)
    draw(
        out / "diagnostics_stall.png",
        [
            ("loss, mean of 20 batches", "linear", loss, None),
            ("share of parameters that stall", "linear", stalled, None),
        ],
    )
    ends = [[name, f"{loss[name][-1]:.4f}", f"{stalled[name][0]:.2f}", f"{stalled[name][-1]:.2f}"] for name in runs]
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
    parser.add_argument("--spikes", action="store_true", help="the spikes alone")
    parser.add_argument("--out", type=Path, default=Path(), help="where the two figures go")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    steps, task = QUICK_STEPS if arguments.quick else STEPS, digits()
    print(headline(), "")
    spike_experiment(steps, arguments.out)
    if arguments.spikes:
        return
    stall_experiment(task, steps, arguments.out)
    cost(task, 1 if arguments.quick else 15)


if __name__ == "__main__":
    main()
