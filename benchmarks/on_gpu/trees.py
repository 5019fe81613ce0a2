"""Whole optimizer steps as a trainer runs them, on trees of many leaves, and what it takes to compile them."""

import functools

from harness import measure, spread, table
from on_gpu.programs import Arrays, Program, compiled, lowered, those_that_run
from on_gpu.record import SKIPPED, Record
from on_gpu.speed import QUICK_SAMPLE_S, SAMPLE_S, STORED
from training_step import chains
from workloads import Optimizer, Tree, gpt2_small, small_leaves

import adamx

THEIRS, FLOOR = "optax", "optax again"
RESERVE_S = 20
"""Seconds that are kept for the measurement: with fewer, nothing more is compiled."""


def contenders() -> dict[str, Optimizer]:
    """Optax's chain, and ours by how moments are stored; composed as well, as sharded programs run it."""
    theirs, ours, _ = chains()
    stored = {**STORED, "int8": dict.fromkeys(("mu_dtype", "nu_dtype"), adamx.storage.Int8(min_size=4096))}
    found = {THEIRS: Optimizer(theirs)}
    found |= {name: Optimizer(ours(**moments), adamx.step) for name, moments in stored.items()}
    return found | {"float32 composed": Optimizer(ours()), FLOOR: Optimizer(theirs)}


def made(optimizer: Optimizer, params: Tree) -> Program:
    """One step, traced, lowered and compiled alone, so that the times mean something."""
    form, seconds = lowered(optimizer, params, 1)
    return compiled(form, optimizer, params, 1, seconds)


def timed(name: str, params: Tree, record: Record, *, quick: bool) -> None:
    """The rows of a tree."""
    programs = {}
    for contender, optimizer in contenders().items():
        if record.left() < RESERVE_S:
            record.add(f"{name}: {contender}", skipped=SKIPPED)
            continue
        program = record.found(f"{name}: {contender}", functools.partial(made, optimizer, params))
        if program is not None:
            programs[contender] = program
            record.add(f"{name}: {contender}, compiled", **program.found)
    builders = those_that_run(Arrays(params).builders(programs), record, f"{name}: ")
    effort = {"budget_s": 0.3, "sample_s": QUICK_SAMPLE_S} if quick else {"budget_s": 6.0, "sample_s": SAMPLE_S}
    seconds, rows = measure(builders, builds=1, **effort), []
    first = compile_s(programs[THEIRS]) if THEIRS in programs else float("nan")
    for contender, taken in seconds.items():
        base = seconds.get(THEIRS, taken)
        over = spread([a / b for a, b in zip(taken, base, strict=True)])
        ms, from_nothing = spread([1e3 * s for s in taken]), compile_s(programs[contender])
        record.keep(f"{name}: {contender}", ms=ms, over_optax=over, from_nothing_s=from_nothing)
        rows.append([contender, f"{ms.median:.4g}", str(over), f"{from_nothing:.2f}", f"{from_nothing / first:.2f}"])
    header = [f"{name}: step", "ms", "over optax", "lower and compile s", "over optax's"]
    print(f"\n{table(header, rows)}\n", flush=True)


def compile_s(program: Program) -> float:
    return program.found["lower_s"] + program.found["compile_s"]


def run(record: Record, *, quick: bool, peer_python: str) -> None:
    trees = {"200 leaves of 64x64": small_leaves(200), "GPT-2 small": gpt2_small()}
    if quick:
        trees = {"4 leaves of 64x64": small_leaves(4)}
    for name, params in trees.items():
        record.found(name, functools.partial(timed, name, params, record, quick=quick))
