"""Time of whole training steps as users write them, over the same in optax: clipping, schedule, weight decay, a mask.

    python benchmarks/training_step.py [--quick] [--json PATH] [--threads N]

Gradients are arguments, so that the optimizer's part is all that is timed. Every row is a chain of a clip by the global
norm and AdamW with a schedule and a mask, in optax by `optax.chain`, `update` and `apply_updates`. A second optax shows
how far apart two equal programs come out. The target for float32 moments is 0.78 at 1.6e7 parameters: optax reads and
writes 44 bytes per parameter, a norm and one pass 32, which is 0.73. A row that misses its target is marked.
"""

import sys
from collections.abc import Callable
from typing import Any

import jax
import optax
import options
import pinning
from harness import headline, measure, table, write_json
from workloads import Optimizer, Tree, as_row, builders, gpt2_small, one_leaf

import adamx

THEIRS, FLOOR = "optax", "optax again"
FLOAT32, HALF, BARE, GUARDED = "float32 moments", "bfloat16 moments", "without the clip", "guarded"
BARS = {FLOAT32: 0.78, HALF: 0.60}
SMALL = 1.03
"""No row may be slower than this, compared to optax."""


def decaying(params: Tree) -> Tree:
    """A mask of matrices; the only leaf of a tree decays as well."""
    return jax.tree.map(lambda p: p.ndim != 1 or p.size > 1_000_000, params)


Chains = tuple[optax.GradientTransformation, Callable[..., optax.GradientTransformation], dict[str, Any]]


def chains() -> Chains:
    """Optax's chain, ours from how moments are stored, and the arguments of AdamW in both."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1e-3, warmup_steps=100, decay_steps=10_000)
    arguments: dict[str, Any] = {"learning_rate": schedule, "weight_decay": 0.1, "mask": decaying}
    theirs = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(**arguments))

    def ours(**moments: Any) -> optax.GradientTransformation:
        return adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adamw(**arguments, **moments))

    return theirs, ours, arguments


def contenders() -> dict[str, Optimizer]:
    """Optax twice, and adamx by how it holds moments and what is around it."""
    theirs, ours, arguments = chains()
    half = {"mu_dtype": "bfloat16", "nu_dtype": "bfloat16"}
    return {
        THEIRS: Optimizer(theirs),
        FLOOR: Optimizer(theirs),
        FLOAT32: Optimizer(ours(), adamx.step),
        HALF: Optimizer(ours(**half), adamx.step),
        BARE: Optimizer(adamx.adamw(**arguments), adamx.step),
        GUARDED: Optimizer(adamx.skip_nonfinite(ours()), adamx.step),
    }


def timed(name: str, params: Tree, *, quick: bool) -> dict[str, Any]:
    """One row, as it goes into the JSON file."""
    print(name, file=sys.stderr)
    effort = {"budget_s": 0.3, "builds": 1} if quick else {"budget_s": 12.0}
    seconds = measure(builders(contenders(), params), **effort)
    return as_row(name, params, seconds, THEIRS)


def cells(row: dict[str, Any]) -> list[str]:
    """One row as the table prints it: medians, and what is missed."""
    ratio = row["ratio"]
    large = row["elements"] >= 16_000_000
    missed = [name for name, bar in BARS.items() if ratio[name].median > (bar if large else SMALL)]
    medians = [f"{ratio[name].median:.3f}" for name in (FLOOR, FLOAT32, HALF, BARE, GUARDED)]
    verdict = f"MISSED: {', '.join(missed)}" if missed else "held"
    return [row["case"], f"{row['milliseconds'][THEIRS].median:.4g}", *medians, verdict]


def main() -> None:
    parser = options.parser(__doc__, quick="one small case, under 30 seconds")
    arguments = pinning.arguments(parser)
    trees = {"1.0e+06 in 1 leaf": one_leaf(1_000_000)}
    if not arguments.quick:
        trees |= {"1.6e+07 in 1 leaf": one_leaf(16_000_000), "GPT-2 small": gpt2_small()}
    rows = [timed(name, tree, quick=arguments.quick) for name, tree in trees.items()]
    print(headline(), f"step, {adamx.kernels.backend()}", "", sep="\n")
    bars = f"<= {BARS[FLOAT32]}, {BARS[HALF]}; small {SMALL}"
    print(
        table(
            ["time over optax's", "ms optax", FLOOR, FLOAT32, HALF, BARE, GUARDED, bars],
            [cells(row) for row in rows],
        )
    )
    write_json(arguments.json, "training_step", {"rows": rows})


if __name__ == "__main__":
    main()
