"""Bytes a parameter: parameters, gradients and state in every combination, from live arrays and from the compiled step.

    python benchmarks/memory.py [--quick] [--json PATH]

"live" counts the arrays that exist between two steps; "step" is what the compiled step needs beside them while it runs,
XLA's `temp_size_in_bytes`, and "aliased" whether it writes parameters and state in place. Bars: state of 8, 4 and at
most 2.13 bytes, and 2 + 2 + state for float32-exact training of bfloat16 parameters. Exits with 1 if one is missed.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from contenders import BYTE, HALF
from harness import headline, table, write_json
from workloads import Optimizer, step_of

import adamx

SIZE, QUICK_SIZE = (4096, 4096), (512, 1024)
FLOAT8 = {"mu_dtype": "float8_e4m3fn", "nu_dtype": "float8_e5m2"}


class Case(NamedTuple):
    """A row: the dtype of parameters and gradients, what wraps Adam, how it holds moments, the bar for the state."""

    name: str
    dtype: Any
    wrap: Callable[[optax.GradientTransformation], optax.GradientTransformation]
    moments: dict[str, Any]
    bar: float | None = None


def plain(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    return tx


MASTER, ROUNDED = adamx.with_master_weights, adamx.with_stochastic_rounding
NARROW = functools.partial(MASTER, bits=24)
INT4 = adamx.storage.Int4()
CASES = [
    Case("float32, float32 moments", jnp.float32, plain, {}, 8),
    Case("float32, bfloat16 moments", jnp.float32, plain, HALF, 4),
    Case("float32, float8 moments", jnp.float32, plain, FLOAT8),
    Case("float32, int8 moments", jnp.float32, plain, BYTE, 2.13),
    Case("float32, int4 m and int8 v", jnp.float32, plain, {**BYTE, "mu_dtype": INT4}, 1.6),
    Case("float32, int4 moments", jnp.float32, plain, {"mu_dtype": INT4, "nu_dtype": INT4}, 1.1),
    Case("bfloat16 + master weights, float32 moments", jnp.bfloat16, MASTER, {}, 2 + 8),
    Case("bfloat16 + master weights, bfloat16 moments", jnp.bfloat16, MASTER, HALF, 2 + 4),
    Case("bfloat16 + master weights, int8 moments", jnp.bfloat16, MASTER, BYTE, 2 + 2.13),
    Case("bfloat16 + 24-bit master weights, int8 moments", jnp.bfloat16, NARROW, BYTE, 1 + 2.13),
    Case("bfloat16 + stochastic rounding, bfloat16 moments", jnp.bfloat16, ROUNDED, HALF, 4),
    Case("bfloat16 + stochastic rounding, int8 moments", jnp.bfloat16, ROUNDED, BYTE, 2.13),
]


class Bytes(NamedTuple):
    """Bytes a parameter."""

    parameters: float
    gradients: float
    state: float
    temporaries: float
    aliased: float


def measured(case: Case, shape: tuple[int, ...]) -> Bytes:
    tx = case.wrap(adamx.adamw(1e-3, **case.moments))
    params = {"w": jnp.zeros(shape, case.dtype)}
    gradients, state = jax.tree.map(jnp.ones_like, params), tx.init(params)

    compiled = step_of(Optimizer(tx)).lower(params, state, gradients).compile()
    memory, n = compiled.memory_analysis(), params["w"].size
    params, state = compiled(params, state, gradients)
    live = [sum(x.nbytes for x in jax.tree.leaves(tree)) / n for tree in (params, gradients)]
    live.append(adamx.state_bytes(state).total / n)
    aliased = memory.alias_size_in_bytes / n / (live[0] + live[2])
    return Bytes(*live, memory.temp_size_in_bytes / n, aliased)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="half a million parameters instead of 17 million")
    parser.add_argument("--json", type=Path, help="where to keep the numbers")
    arguments = parser.parse_args()
    shape = QUICK_SIZE if arguments.quick else SIZE

    found = {case.name: measured(case, shape) for case in CASES}
    rows, missed = [], False
    for case in CASES:
        b = found[case.name]
        holds = case.bar is None or b.state <= case.bar + 1e-4
        missed |= not holds
        live = b.parameters + b.gradients + b.state
        verdict = "none" if case.bar is None else f"<= {case.bar:g} {'holds' if holds else 'MISSED'}"
        numbers = (b.parameters, b.gradients, b.state, live, b.temporaries)
        rows.append([case.name, *(f"{x:.3f}" for x in numbers), f"{100 * b.aliased:.0f} %", verdict])
    header = ["parameters, moments", "parameters", "gradients", "state", "live", "step", "aliased", "state's bar"]
    print(headline(), "", f"bytes a parameter, one leaf of {shape[0]} x {shape[1]}", "", table(header, rows), sep="\n")
    write_json(arguments.json, "memory", {"bytes": {name: b._asdict() for name, b in found.items()}})
    return missed


if __name__ == "__main__":
    sys.exit(main())
