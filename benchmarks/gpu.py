"""Time of one optimizer step on a GPU, and the bytes that it moves in it, beside a copy on the device.

    python benchmarks/gpu.py [--quick] [--json PATH] [--peer-python PATH]

Steps of a sample follow one another; only the last one is waited for. The copy reads and writes as many bytes as a step
with float32 moments. Libraries of the torch world work in processes of their own, in the same rounds. Bars: moments in
int8 0.65 and in bfloat16 0.80 of optax's float32, and 80 % of the copy's rate for every step of adamx; a row that
misses one is marked, the exit code is 0. Without a GPU it says so.
"""

import functools
import os
import sys
import time
from typing import Any

import contenders
import jax
import jax.numpy as jnp
import options
import remote
from contenders import FUSED, FUSED_BYTE, FUSED_HALF, OURS, THEIRS
from harness import Contender, Spread, headline, measure, ratios, spread, table, write_json
from workloads import builders, bytes_moved, one_leaf

SIZES, QUICK = (16_000_000, 256_000_000), (16_000_000,)
BARS = {FUSED_BYTE: 0.65, FUSED_HALF: 0.80}
RATE_BAR = 0.80
COPY = "copy"
PEERS = {"torch fused": "torch-fused", "bitsandbytes 8-bit": "bitsandbytes", "torchao 8-bit": "torchao"}
SAMPLE_S = 20e-3
"""How long a sample lasts: many steps, so that waiting for the last one is little of it."""


def copy(bytes_in_all: int) -> Contender:
    """A copy that reads and writes this many bytes together."""
    source, copied = jnp.ones(bytes_in_all // 8, jnp.float32), jax.jit(jnp.copy)

    def contender(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            result = copied(source)
        jax.block_until_ready(result)
        return (time.perf_counter() - start) / calls

    return contender


def timed(elements: int, peers: remote.Remotes, *, quick: bool) -> dict[str, Any]:
    """One size, as it goes into the JSON file."""
    print(f"{elements:.1e} elements", file=sys.stderr)
    params, optimizers = one_leaf(elements), contenders.adam()
    moved = {name: bytes_moved(optimizer, params) for name, optimizer in optimizers.items()}
    compared = builders(optimizers, params, wait=False) | {COPY: functools.partial(copy, moved[THEIRS])}
    effort = {"budget_s": 3.0, "builds": 1} if quick else {"budget_s": 20.0}
    seconds = measure(compared | peers.builders(params), sample_s=SAMPLE_S, **effort)
    peers.release()
    moved[COPY] = moved[THEIRS]
    over_copy = ratios(seconds, COPY)
    return {
        "elements": elements,
        "rounds": len(seconds[OURS]),
        "bytes": moved,
        "milliseconds": {name: spread([1e3 * s for s in values]) for name, values in seconds.items()},
        "ratio": ratios(seconds, THEIRS),
        "rate_over_copy": {name: moved[name] / moved[COPY] / over_copy[name].median for name in moved},
    }


def verdicts(name: str, ratio: Spread, rate: float | None) -> list[str]:
    """The bars of a contender: of its time and of its rate."""
    time_bar = f"<= {BARS[name]:.2f} {'holds' if ratio.median <= BARS[name] else 'OVER'}" if name in BARS else "none"
    ours = name in (OURS, FUSED, FUSED_HALF, FUSED_BYTE)
    return [time_bar, f">= {RATE_BAR:.2f} {'holds' if rate >= RATE_BAR else 'UNDER'}" if ours else "none"]


def cells(row: dict[str, Any], name: str) -> list[str]:
    """One row of the table: a contender at a size."""
    rate, moved, ms = row["rate_over_copy"].get(name), row["bytes"].get(name), row["milliseconds"][name]
    gigabytes = "" if moved is None else f"{moved / ms.median / 1e6:.0f}"
    first = [f"{row['elements']:.1e}: {name}", f"{ms.median:.4g}", str(row["ratio"][name]), gigabytes]
    return [*first, "" if rate is None else f"{rate:.3f}", *verdicts(name, row["ratio"][name], rate)]


def report(rows: list[dict[str, Any]], missing: dict[str, str]) -> None:
    header = ["step", "ms", "over optax", "GB/s", "GB/s over copy's", "bar of time", "bar of rate"]
    print(table(header, [cells(row, name) for row in rows for name in row["milliseconds"]]))
    for name, why in missing.items():
        print(f"{name}: {why}")


def main() -> None:
    parser = options.parser(__doc__, quick="the smaller size alone")
    remote.add_option(parser)
    arguments = parser.parse_args()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the other processes need memory too
    if jax.default_backend() != "gpu":
        print("no GPU: JAX has none, nothing was timed")
        return

    with remote.started(arguments.peer_python, PEERS, device="cuda") as peers:
        rows = [timed(size, peers, quick=arguments.quick) for size in (QUICK if arguments.quick else SIZES)]
        versions, missing = peers.headline(), peers.missing
    print(headline(), f"GPU {jax.devices()[0].device_kind}, {versions}", "", sep="\n")
    report(rows, missing)
    write_json(arguments.json, "gpu", {"peers": versions, "missing": missing, "rows": rows})


if __name__ == "__main__":
    main()
