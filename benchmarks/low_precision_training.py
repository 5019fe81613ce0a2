"""Does training in low precision end where float32 ends? Two tasks, five seeds, everything else equal.

    python benchmarks/low_precision_training.py [--quick] [--from PATH] [--json PATH] [--figure PATH]

AdamW at 2e-3, warmed up and decayed, the same batches for all. The loss is that of the held-out data after the last
step. A row holds if its mean is within 2 % of float32's and within the spread of float32's seeds (two standard
deviations). The forward pass is in float32, from parameters in the dtype named; gradients have that dtype. `--from`
takes rows from an earlier `--json` instead of training again: with all rows there it only prints and draws.
"""

import argparse
import functools
import json
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import figures
import jax
import jax.numpy as jnp
import numpy as np
import optax
import rivals
from harness import compile_lightly, headline, table, write_json
from tasks import Task, characters, digits
from tqdm import tqdm

import adamx

SEEDS, STEPS, QUICK_STEPS, EVERY = 5, 1000, 40, 20
INT8, INT4 = adamx.storage.Int8(min_size=4096), adamx.storage.Int4(min_size=4096)


class Run(NamedTuple):
    """One way to train: a transformation, and the dtype of the parameters."""

    build: Callable[[Any], optax.GradientTransformation]
    dtype: Any = jnp.float32
    judged: bool = True


def adamw(**arguments: Any) -> Callable[[Any], optax.GradientTransformation]:
    return functools.partial(adamx.adamw, weight_decay=0.01, **arguments)


def four(codec: Any, every: int = 0) -> Callable[[Any], optax.GradientTransformation]:
    """AdamW with both moments in this codec; every so many steps its moments begin anew, the schedule does not."""

    def build(rate: Any) -> optax.GradientTransformation:
        tx = adamw(mu_dtype=codec, nu_dtype=codec)(rate)

        def update(gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
            fresh = tx.init(params)[0]
            updates, (moments, *rest) = tx.update(gradients, state, params)
            if every:
                moments = jax.tree.map(lambda new, old: jnp.where(moments.count == every, new, old), fresh, moments)
            return updates, (moments, *rest)

        return optax.GradientTransformation(tx.init, update)

    return build


RUNS = {
    "float32": Run(adamw()),
    "bfloat16 moments": Run(adamw(mu_dtype="bfloat16", nu_dtype="bfloat16")),
    "int8 moments": Run(adamw(mu_dtype=INT8, nu_dtype=INT8)),
    "bfloat16 parameters, master weights": Run(lambda rate: adamx.with_master_weights(adamw()(rate)), jnp.bfloat16),
    "the same, int8 moments": Run(
        lambda rate: adamx.with_master_weights(adamw(mu_dtype=INT8, nu_dtype=INT8)(rate)), jnp.bfloat16
    ),
    "bfloat16 parameters, stochastic rounding": Run(
        lambda rate: adamx.with_stochastic_rounding(adamw()(rate)), jnp.bfloat16
    ),
    "bfloat16 parameters, 24-bit master weights": Run(
        lambda rate: adamx.with_master_weights(adamw()(rate), bits=24), jnp.bfloat16
    ),
    "the same, int8 moments, 24 bits": Run(
        lambda rate: adamx.with_master_weights(adamw(mu_dtype=INT8, nu_dtype=INT8)(rate), bits=24), jnp.bfloat16
    ),
    "int4 m, int8 v": Run(adamw(mu_dtype=INT4, nu_dtype=INT8)),
    "int4 moments": Run(adamw(mu_dtype=INT4, nu_dtype=INT4)),
    "int4 moments, nearest": Run(four(rivals.Halfway(INT4)), judged=False),
    "int4 moments, nearest, reset every 100 steps": Run(four(rivals.Halfway(INT4), 100), judged=False),
    "4-bit moments as torchao": Run(four(rivals.four_bits(rounding="nearest")), judged=False),
    "4-bit moments as torchao, reset every 100 steps": Run(
        four(rivals.four_bits(rounding="nearest"), 100), judged=False
    ),
    "bfloat16 parameters, optax.adamw": Run(functools.partial(optax.adamw, weight_decay=0.01), jnp.bfloat16, False),
}

SHOWN = {
    "float32": "float32",
    "bfloat16 moments": "bfloat16 moments",
    "int8 moments": "Int8 moments",
    "int4 m, int8 v": "Int4 m, Int8 v",
    "int4 moments": "Int4 moments",
    "int4 moments, nearest": "Int4 moments, nearest",
    "int4 moments, nearest, reset every 100 steps": "Int4, nearest, resets",
    "4-bit moments as torchao": "4 bits as torchao",
    "bfloat16 parameters, master weights": "bf16, master weights",
    "the same, int8 moments, 24 bits": "bf16, 24 bits, Int8",
    "bfloat16 parameters, stochastic rounding": "bf16, stochastic rounding",
    "bfloat16 parameters, optax.adamw": "bf16, optax.adamw",
}
"""Rows of the figure."""


def curves(task: Task, run: Run, steps: int) -> np.ndarray:
    """The held-out loss of every seed, `(points, seeds)`."""
    tx = run.build(optax.warmup_cosine_decay_schedule(0.0, 2e-3, steps // 10, steps, 2e-5))

    def loss(params: Any, batch: Any) -> jax.Array:
        return task.loss(jax.tree.map(lambda p: p.astype(jnp.float32), params), batch)

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params, task.batch(key)), state, params)
        return (optax.apply_updates(params, updates), state), None

    def some(carry: Any, keys: jax.Array) -> tuple[Any, jax.Array]:
        carry = jax.lax.scan(step, carry, keys)[0]
        return carry, loss(carry[0], task.test)

    @jax.jit
    @jax.vmap
    def train(seed: jax.Array) -> jax.Array:
        start, batches = jax.random.split(jax.random.key(seed))
        params = jax.tree.map(lambda p: p.astype(run.dtype), task.init(start))
        keys = jax.random.split(batches, (steps // EVERY, EVERY))
        return jax.lax.scan(some, (params, tx.init(params)), keys)[1]

    return np.asarray(train(jnp.arange(SEEDS))).T


def judged(final: np.ndarray, reference: np.ndarray) -> bool:
    away = abs(final.mean() - reference.mean())
    return bool(away <= 0.02 * reference.mean() and away <= 2 * reference.std(ddof=1))


def draw(found: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    """Held-out loss after the last step over the mean of float32's: a panel for each task, a dot for each seed."""
    shown = {name: words for name, words in SHOWN.items() if all(name in runs for runs in found.values())}
    colours = [figures.OURS if RUNS[name].judged else figures.COLOURS[1] for name in shown]
    figure, axes = figures.panels(len(found), height=0.33 * len(shown) + 0.9, sharey=True)
    for axis, (task, runs) in zip(axes, found.items(), strict=True):
        base = runs["float32"][-1]
        within = 100 * min(0.02, 2 * base.std(ddof=1) / base.mean())
        axis.axvspan(-within, within, color="0.92", zorder=0)
        over = {words: 100 * (runs[name][-1] / base.mean() - 1) for name, words in shown.items()}
        figures.seeds(axis, over, colours)
        axis.set(title=task, xlabel="held-out loss over float32's (%)")
    figures.save(figure, path)


def losses_of(path: Path | None, tasks: Collection[str]) -> dict[str, dict[str, np.ndarray]]:
    """The curves of an earlier run, by task and row; none without a path."""
    kept = json.loads(path.read_text())["losses"] if path else {}
    return {task: {name: np.asarray(kept[task][name]) for name in RUNS if name in kept.get(task, {})} for task in tasks}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="40 steps of the digits, judged by nothing")
    parser.add_argument("--from", type=Path, dest="earlier", help="an earlier --json, whose rows are not run again")
    parser.add_argument("--json", type=Path, help="where to keep the numbers, written after every row")
    parser.add_argument("--figure", type=Path, help="where to draw the losses after the last step")
    arguments = parser.parse_args()
    steps = QUICK_STEPS if arguments.quick else STEPS
    if arguments.quick:
        compile_lightly()
    tasks = {"digits": digits()} if arguments.quick else {"digits": digits(), "characters": characters()}

    found = losses_of(arguments.earlier, tasks)
    missing = [(task, run) for task in tasks for run in RUNS if run not in found[task]]
    for task, run in tqdm(missing, unit="run"):
        found[task][run] = curves(tasks[task], RUNS[run], steps)
        found = {t: {n: r[n] for n in RUNS if n in r} for t, r in found.items()}
        losses = {t: {n: c.tolist() for n, c in r.items()} for t, r in found.items()}
        write_json(arguments.json, "low_precision_training", {"steps": steps, "losses": losses})

    print(headline(), "", f"{SEEDS} seeds, {steps} steps, held-out loss after the last", sep="\n")
    missed = False
    for task, runs in found.items():
        reference, rows = runs["float32"][-1], []
        for name, losses in runs.items():
            final = losses[-1]
            holds = judged(final, reference)
            missed |= RUNS[name].judged and not holds
            verdict = "holds" if holds else "MISSED" if RUNS[name].judged else "does not"
            difference = f"{100 * (final.mean() / reference.mean() - 1):+.2f} %"
            rows.append([name, f"{final.mean():.4f} ± {final.std(ddof=1):.4f}", difference, verdict])
        print("", table([task, "loss", "to float32", "within 2 % and 2 s.d."], rows), sep="\n")
    if arguments.figure:
        draw(found, arguments.figure)
    return 0 if arguments.quick else missed


if __name__ == "__main__":
    sys.exit(main())
