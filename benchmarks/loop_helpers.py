"""Time of what training loops add to a step, over optax's way: accumulation, an average, norms, a guard, groups.

    python benchmarks/loop_helpers.py [--quick] [--json PATH] [--threads N]

Every optimizer is a clip by the global norm and AdamW with a schedule. Beside ours stands what a loop of optax does:
`MultiSteps` (four microbatches and their step are timed together), `optax.incremental_update` of an average behind the
step, three `optax.global_norm` for a log, `apply_if_finite` in the place of the guard against spikes, which optax has
not, and `partition` by label. The target for accumulation is 0.80 at 1.6e7 parameters, for everything else 1.03.
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import optax
import options
import pinning
from harness import headline, measure, table, write_json
from workloads import Optimizer, Tree, as_row, builders, update_and_apply

import adamx

THEIRS, FLOOR, OURS = "optax", "optax again", "adamx"
MICROBATCHES = 4
BARS = {"accumulate": 0.80, "average": 1.03, "norms": 1.03, "spikes": 1.03, "route": 1.03}


def each_microbatch(take: Any) -> Any:
    """Four calls, of which the last takes the step."""

    def run(tx: Any, gradients: Tree, state: Tree, params: Tree) -> tuple[Tree, Tree]:
        for _ in range(MICROBATCHES):
            params, state = take(tx, gradients, state, params)
        return params, state

    return run


def averaged(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """An average of the parameters beside the state, as a loop of optax keeps it."""

    def init(params: Tree) -> Tree:
        return tx.init(params), jax.tree.map(jnp.copy, params)

    def update(updates: Tree, state: Tree, params: Tree = None) -> tuple[Tree, Tree]:
        updates, inner = tx.update(updates, state[0], params)
        average = optax.incremental_update(optax.apply_updates(params, updates), state[1], 1e-3)
        return updates, (inner, average)

    return optax.GradientTransformation(init, update)


def logged(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """The norms of gradients, updates and parameters beside the state, as a loop of optax takes them."""

    def init(params: Tree) -> Tree:
        return tx.init(params), jnp.zeros(3)

    def update(updates: Tree, state: Tree, params: Tree = None) -> tuple[Tree, Tree]:
        moved, inner = tx.update(updates, state[0], params)
        trees = updates, moved, optax.apply_updates(params, moved)
        return moved, (inner, jnp.stack([optax.global_norm(tree) for tree in trees]))

    return optax.GradientTransformation(init, update)


def pairs() -> dict[str, tuple[Optimizer, Optimizer]]:
    """For each helper optax's way and ours."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1e-3, warmup_steps=100, decay_steps=10_000)
    theirs = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.1))
    ours = adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adamw(schedule, weight_decay=0.1))

    def labels(params: Tree) -> Tree:
        return {name: "head" if name == "head" else "body" for name in params}

    groups = {"body": optax.adamw(schedule, weight_decay=0.1), "head": optax.adamw(1e-4)}
    multi = optax.MultiSteps(theirs, MICROBATCHES).gradient_transformation()
    return {
        "accumulate": (
            Optimizer(multi, each_microbatch(update_and_apply)),
            Optimizer(adamx.accumulate(ours, MICROBATCHES), each_microbatch(adamx.step)),
        ),
        "average": (Optimizer(averaged(theirs)), Optimizer(adamx.with_ema(ours, 0.999, debias=False), adamx.step)),
        "norms": (Optimizer(logged(theirs)), Optimizer(adamx.with_norms(ours), adamx.step)),
        "spikes": (Optimizer(optax.apply_if_finite(theirs, 5)), Optimizer(adamx.skip_spikes(ours), adamx.step)),
        "route": (
            Optimizer(optax.partition(groups, labels)),
            Optimizer(
                adamx.route({"^head": adamx.adamw(1e-4)}, default=adamx.adamw(schedule, weight_decay=0.1)), adamx.step
            ),
        ),
    }


def timed(name: str, theirs: Optimizer, ours: Optimizer, params: Tree, *, quick: bool) -> dict[str, Any]:
    """One row, as it goes into the JSON file."""
    print(name, file=sys.stderr)
    effort = {"budget_s": 0.3, "builds": 1} if quick else {"budget_s": 12.0}
    seconds = measure(builders({THEIRS: theirs, FLOOR: theirs, OURS: ours}, params), **effort)
    return as_row(name, params, seconds, THEIRS)


def cells(row: dict[str, Any]) -> list[str]:
    """One row as the table prints it."""
    ratio, bar = row["ratio"], BARS[row["case"]]
    verdict = "held" if ratio[OURS].median <= bar else "MISSED"
    medians = [f"{ratio[name].median:.3f}" for name in (FLOOR, OURS)]
    return [row["case"], f"{row['milliseconds'][THEIRS].median:.4g}", *medians, f"{verdict}, <= {bar}"]


def main() -> None:
    parser = options.parser(__doc__, quick="a small case, under a minute")
    arguments = pinning.arguments(parser)
    size = 100_000 if arguments.quick else 8_000_000
    params = {name: jax.ShapeDtypeStruct((size,), jnp.float32) for name in ("body", "head")}
    rows = [timed(name, *pair, params, quick=arguments.quick) for name, pair in pairs().items()]
    print(headline(), f"step, {adamx.kernels.backend()}; {2 * size:,} parameters in 2 leaves", "", sep="\n")
    print(table(["time over optax's", "ms optax", FLOOR, OURS, "target"], [cells(row) for row in rows]))
    write_json(arguments.json, "loop_helpers", {"rows": rows})


if __name__ == "__main__":
    main()
