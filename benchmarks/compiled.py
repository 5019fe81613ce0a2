"""What XLA makes of a step for TPUs and GPUs that are not at hand: bytes, temporaries, kernels and collectives.

    python benchmarks/compiled.py [--quick] [--write] [--only TEXT]

Compiles for a TPU v5e and v6e (`pip install libtpu`, of the version that jax's extra "tpu" names) and for an H100
(`pip install --no-deps jax-cuda12-plugin jax-cuda12-pjrt`, of jax's own version), and compares with
docs/results/compiled.json. The exit code is 1 if a step moves more bytes or takes more temporary memory than stated
there, and 2 if no compiler is installed. Bytes are operands and results of every operation of the optimized program,
with the padding of tiles, without what stays in fast memory. Nothing is timed.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ |= {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "JAX_PLATFORMS": "cpu",
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
}

import jax
import jax.numpy as jnp
import optax
from harness import table
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from traffic import traffic

import adamx

STATED = Path(__file__).parents[1] / "docs/results/compiled.json"
H100 = Path(__file__).with_name("h100.txtpb")
"""What XLA:GPU is told of the card."""

SQUARE, LARGE, NARROW, SMALL = ((4096, 4096), 1), ((8, 4096, 14336), 1), ((131072, 128), 1), ((64, 64), 200)
FLAT, VECTOR = ((16, 1 << 20), 1), ((1 << 24,), 1)
"""A shape and how many leaves have it."""

CODEC, HALF = adamx.storage.Int8(min_size=0), {"mu_dtype": "bfloat16", "nu_dtype": "bfloat16"}
STEPS = {
    "float32": (adamx.adam(1e-3), jnp.float32, 28),
    "bfloat16": (adamx.adam(1e-3, **HALF), jnp.float32, 20),
    "stochastic rounding": (adamx.with_stochastic_rounding(adamx.adam(1e-3, **HALF)), jnp.bfloat16, 14),
    "master weights": (adamx.with_master_weights(adamx.adam(1e-3)), jnp.bfloat16, 26),
    "master weights, bfloat16": (adamx.with_master_weights(adamx.adam(1e-3, **HALF)), jnp.bfloat16, 18),
    "Int8": (adamx.adam(1e-3, mu_dtype=CODEC, nu_dtype=CODEC), jnp.float32, 16.25),
}
"""The transformation, the dtype of parameters and gradients, and the least bytes per parameter that a step moves."""


class Row(NamedTuple):
    """One program."""

    target: str
    chips: int
    step: str
    leaves: tuple[tuple[int, ...], int]
    way: str

    def __str__(self) -> str:
        shape, count = self.leaves
        sizes = "x".join(map(str, shape))
        chips = f"{self.chips} {self.target}" if self.chips > 1 else self.target
        return f"{chips}, {self.step}, {f'{count} of ' if count > 1 else ''}{sizes}, {self.way}"


def rows(*, quick: bool) -> Iterator[Row]:
    """The programs.

    composed: `update` and `apply_updates`; kernel: `adamx.step`; xla: that without a kernel; pinned_host: that with the
    state in host memory, see docs/offload.md.
    """
    for target in ("v5e", "H100") if quick else ("v5e", "v6e", "H100"):
        for step in STEPS:
            for way in ("composed", "kernel") if quick else ("composed", "xla", "kernel"):
                if not quick or step in ("bfloat16", "stochastic rounding", "Int8"):
                    yield Row(target, 1, step, SQUARE, way)
    for leaves in (NARROW, FLAT, VECTOR) if quick else (LARGE, NARROW, FLAT, VECTOR):
        for target in ("v5e", "H100"):
            for way in ("kernel",) if quick else ("composed", "kernel"):
                yield Row(target, 1, "Int8", leaves, way)
    for chips in () if quick else (4, 16, 256):
        for step in ("float32", "bfloat16", "Int8"):
            yield Row("v5e", chips, step, SQUARE, "sharded")
            yield Row("v5e", chips, step, SQUARE, "shard_state")
    if not quick:
        yield Row("v5e", 1, "float32", SQUARE, "pinned_host")
        yield Row("v5e", 1, "bfloat16", SQUARE, "pinned_host")
        yield Row("H100", 1, "Int8", SMALL, "composed")
        yield Row("H100", 8, "Int8", SQUARE, "sharded")


TOPOLOGIES = {1: "1x1", 4: "2x2", 16: "4x4", 256: "16x16"}


def devices(target: str, chips: int) -> list[Any]:
    """Devices to compile for; an exception where their compiler is not installed."""
    if target == "H100":
        shape = f"1x{chips}x1"
        return topologies.get_topology_desc("", "cuda", target_config=H100.read_text(), topology=shape).devices
    alone = {"chips_per_host_bounds": [1, 1, 1]} if chips == 1 else {}
    return topologies.get_topology_desc(f"{target}:{TOPOLOGIES[chips]}", "tpu", **alone).devices


def compiled(row: Row, on: list[Any]) -> dict[str, Any]:
    """What a program does on one device, per parameter that it has there."""
    mesh = Mesh(on, ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    (shape, count), (tx, dtype, _) = row.leaves, STEPS[row.step]
    whole = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec("data")) if row.chips > 1 else whole
    if row.way == "shard_state":
        tx = adamx.shard_state(tx, mesh, axis="data", specs=[split.spec] * count)

    def place(x: Any) -> Any:
        return getattr(x, "sharding", None) or (split if x.ndim else whole)

    def step(params: Any, state: Any, gradients: Any) -> tuple[Any, Any]:
        if in_host:
            state = jax.device_put(state, here)
        if row.way == "composed":
            updates, state = tx.update(gradients, state, params)
            return optax.apply_updates(params, updates), state
        return adamx.step(tx, gradients, state, params, backend="xla" if row.way == "xla" else "auto")

    params = [jax.ShapeDtypeStruct(shape, dtype, sharding=split)] * count
    state = jax.eval_shape(tx.init, params)
    shards = adamx.sharding.state_sharding(tx, params, mesh).shardings if row.way == "shard_state" else None
    here = shards or jax.tree.map(place, state)
    in_host = row.way == "pinned_host"
    kept = jax.tree.map(lambda s: s.with_memory_kind("pinned_host"), here) if in_host else here
    state = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, kept)
    results = {"out_shardings": (None, kept)} if in_host else {}
    platform = "cuda" if row.target == "H100" else "tpu"
    traced = jax.jit(step, donate_argnums=(0, 1), **results).trace(params, state, params)
    program = traced.lower(lowering_platforms=(platform,)).compile()
    found, memory = traffic(program.as_text()), program.memory_analysis()
    parameters = count * math.prod(shape) / row.chips
    return {
        "bytes": round(found.moved / parameters, 3),
        "temporaries": round(memory.temp_size_in_bytes / parameters, 3),
        "aliased": round(memory.alias_size_in_bytes / parameters, 3),
        "fusions": found.fusions,
        "kernels": found.kernels,
        "collectives": found.collectives,
    }


def verdict(found: dict[str, Any], stated: dict[str, Any] | None) -> str:
    """How a program compares with what is stated."""
    if stated is None:
        return "new"
    over = [name for name in ("bytes", "temporaries") if found[name] > stated[name] * 1.01 + 0.02]
    return f"OVER: {', '.join(over)}" if over else "holds"


def main() -> int:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few rows")
    parser.add_argument("--write", action="store_true", help="state what was found")
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    asked = parser.parse_args()
    stated = json.loads(STATED.read_text()) if STATED.exists() else {}
    cells, missing = [], set()
    for row in rows(quick=asked.quick):
        if asked.only not in str(row) or row.target in missing:
            continue
        try:
            on = devices(row.target, row.chips)
        except Exception as error:  # whatever a plugin that is not there raises
            missing.add(row.target)
            print(f"no compiler for {row.target}: {type(error).__name__}", file=sys.stderr)
            continue
        found = compiled(row, on)
        names = "bytes", "temporaries", "fusions", "kernels"
        ideal = STEPS[row.step][2] if row.chips == 1 else ""
        told = " ".join(f"{kind} {count}" for kind, count in found["collectives"].items())
        cells.append(
            [str(row), f"{ideal}", *(f"{found[name]}" for name in names), told, verdict(found, stated.get(str(row)))]
        )
        print("  ".join(cells[-1]), file=sys.stderr, flush=True)
        if asked.write:
            stated[str(row)] = found
            STATED.write_text(json.dumps(stated, indent=1) + "\n")
    print(f"jax {jax.__version__}; bytes per parameter")
    print(table(["program", "least", "bytes", "temporaries", "fusions", "kernels", "collectives", "verdict"], cells))
    return 1 if any("OVER" in row[-1] for row in cells) else 0 if cells else 2


if __name__ == "__main__":
    sys.exit(main())
