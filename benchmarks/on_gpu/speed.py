"""Time of a step on one leaf, over optax's and over a copy's, by storage and by what runs the step; torch beside it."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import optax
import remote
from harness import Builder, Contender, measure, ratios, spread, table
from on_gpu.programs import Arrays, all_compiled, by_xla, lowers_for_gpu, those_that_run
from on_gpu.record import Record
from workloads import Optimizer, Tree, bytes_moved, small_leaves

import adamx

SIZES, QUICK = ((8192, 8192), (16384, 16384)), ((128, 256),)
"""64 and 256 million elements in one leaf."""
STEPS = 10
"""Of a program: a loop that ends is a moment without work."""
THEIRS, FLOOR, COPY, SCALE = "optax", "optax again", "copy", "in place"
PEERS = {"torch fused": "torch-fused-adamw"}
SAMPLE_S, QUICK_SAMPLE_S = 20e-3, 1e-3
TIME_TARGETS, RATE_TARGET = {"bfloat16 auto": 0.80, "int8 auto": 0.65}, 0.80
"""At most these shares of optax's time, and of each step that adamx runs this share of the faster stream's rate."""
CALLED = ("optax", "float32 auto", "int8 auto")
"""Also timed as one step a program, which shows what the loop adds or takes."""

HYPER: dict[str, Any] = {"learning_rate": 1e-3, "weight_decay": 0.01}
INT8 = adamx.storage.Int8(min_size=0)
STORED: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"mu_dtype": "bfloat16", "nu_dtype": "bfloat16"},
    "int8": {"mu_dtype": INT8, "nu_dtype": INT8},
}


def optimizers() -> dict[str, Optimizer]:
    """AdamW of optax, twice, and ours in each storage: composed, in one pass by XLA, and by a kernel where it can."""
    found = {name: Optimizer(optax.adamw(**HYPER)) for name in (THEIRS, FLOOR)}
    for stored, arguments in STORED.items():
        tx = adamx.adamw(**HYPER, **arguments)
        ways = {"composed": Optimizer(tx), "xla": Optimizer(tx, by_xla), "auto": Optimizer(tx, adamx.step)}
        found |= {f"{stored} {way}": optimizer for way, optimizer in ways.items()}
    return found


def floors(elements: int) -> dict[str, Builder]:
    """Two ways to read and write as many bytes as a step of float32: a copy, and a product in place in a loop."""
    source, copied = jnp.ones(4 * elements - elements // 2, jnp.float32), jax.jit(jnp.copy)
    scaled = jax.jit(lambda x: jax.lax.fori_loop(0, STEPS, lambda _, x: x * 0.999, x), donate_argnums=0)
    held = [jnp.ones_like(source)]

    def copy() -> Contender:
        def run(calls: int) -> float:
            start = time.perf_counter()
            for _ in range(calls):
                result = copied(source)
            jax.block_until_ready(result)
            return (time.perf_counter() - start) / calls

        return run

    def scale() -> Contender:
        def run(calls: int) -> float:
            runs = -(-calls // STEPS)
            start = time.perf_counter()
            for _ in range(runs):
                held[0] = scaled(held[0])
            jax.block_until_ready(held)
            return (time.perf_counter() - start) / runs / STEPS

        return run

    return {COPY: copy, SCALE: scale}


def rows_of(seconds: dict[str, list[float]], moved: dict[str, int]) -> list[dict[str, Any]]:
    """What is known of each contender: time, bytes over time, and both beside optax and the faster stream."""
    base = THEIRS if THEIRS in seconds else next(iter(seconds))
    streams = [name for name in (COPY, SCALE) if name in seconds] or [base]
    floor = min(streams, key=lambda name: spread(seconds[name]).median)
    over_optax, over_copy, rows = ratios(seconds, base), ratios(seconds, floor), []
    for name, taken in seconds.items():
        bytes_in_all = moved.get(name.removesuffix(", one step"), moved[THEIRS])
        row = {"ms": spread([1e3 * s for s in taken]), "over_optax": over_optax[name], "over_stream": over_copy[name]}
        rate = bytes_in_all / spread(taken).median
        share = bytes_in_all / moved[THEIRS] / over_copy[name].median
        rows.append({"name": name, **row, "gb_per_s": round(rate / 1e9), "rate_over_stream": round(share, 3)})
        rows[-1]["targets"] = missed(rows[-1])
    return rows


def missed(row: dict[str, Any]) -> str:
    """The performance targets that a row misses."""
    if not row["name"].endswith("auto"):
        return ""
    slow = row["over_optax"].median > TIME_TARGETS.get(row["name"], float("inf"))
    found = ["time"] * slow + ["rate"] * (row["rate_over_stream"] < RATE_TARGET)
    return f"MISSED: {', '.join(found)}" if found else "held"


def timed(shape: tuple[int, ...], record: Record, peers: remote.Remotes, *, quick: bool, calls: bool) -> None:
    """The rows of one size."""
    params: Tree = small_leaves(1, *shape)
    elements, compared = params[0].size, optimizers()
    where = f"{elements / 2**20:g}M: "
    programs = all_compiled(compared, params, STEPS, record, where)
    if calls:
        single = all_compiled({name: compared[name] for name in CALLED}, params, 1, record, where)
        programs |= {f"{name}, one step": program for name, program in single.items()}
    arrays, moved = Arrays(params), {name: bytes_moved(o, params) for name, o in compared.items()}
    builders = arrays.builders(programs) | floors(elements) | peers.builders(params)
    effort = (
        {"budget_s": 0.5, "sample_s": QUICK_SAMPLE_S}
        if quick
        else {"budget_s": min(15.0, record.left() / 2), "sample_s": SAMPLE_S}
    )
    seconds = measure(those_that_run(builders, record, where), builds=1, **effort)
    peers.release()
    rows = rows_of(seconds, moved)
    for row in rows:
        program = programs.get(row["name"])
        record.keep(where + row["name"], **row, **(program.found if program else {}))
    header = ["elements, step", "ms", "over optax", "GB/s", "rate over the stream's", "targets"]
    cells = [[r["name"], f"{r['ms'].median:.4g}", str(r["over_optax"]), *map(str, list(r.values())[-3:])] for r in rows]
    print(f"\n{table([where + header[0], *header[1:]], cells)}\n", flush=True)


def run(record: Record, *, quick: bool, peer_python: str) -> None:
    with remote.started(peer_python, PEERS, device="cpu" if quick else "cuda") as peers:
        record.add("peers", found=peers.headline(), **{"missing " + name: why for name, why in peers.missing.items()})
        for shape in QUICK if quick else SIZES:
            record.found(
                f"a leaf of {shape}",
                lambda shape=shape: timed(shape, record, peers, quick=quick, calls=shape in (SIZES[0], QUICK[0])),
            )
    if quick:
        for name, optimizer in optimizers().items():
            if name.endswith("auto"):
                params = small_leaves(1, *QUICK[0])
                record.attempt(f"{name}, on a GPU", lambda o=optimizer, p=params: lowers_for_gpu(o, p, STEPS))
