"""What a step of `adamx.on_host` takes, beside its transfers and its step one after the other.

Two CPU devices: one keeps the state and steps, the other keeps parameters and gradients, in the place of an
accelerator. Three contenders: `adamx.step` of `on_host`; the same step jitted, all arrays on the host; the transfers,
gradients down and parameters up. Performance target: at most 1.15 of the sum of the other two, at 1.6e7 parameters in
50 leaves. Every contender waits until its results are there.

Two more targets are the same on every machine, and the program exits with 1 where one is missed: parameters and state
are bitwise identical to those of the jitted step, and during a step the device holds no more than parameters, gradients
and 1024 bytes. `--bars` checks these two alone.
"""

import functools
import gc
import os
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from harness import Contender, headline, measure, per_call, spread, table, verdict, write_json
from options import parser

import adamx

LEAVES, SIZE, QUICK_SIZE = 50, (560, 576), (56, 576)
TARGET = 1.15
OPTIMIZERS: dict[str, tuple[Any, Any]] = {
    "float32 AdamW": (jnp.float32, adamx.adamw(1e-3)),
    "float32, clipped": (jnp.float32, adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adamw(1e-3))),
    "bfloat16, master weights": (jnp.bfloat16, adamx.with_master_weights(adamx.adamw(1e-3))),
}


def two_cpu_devices() -> None:
    """Makes JAX see two. Before JAX is used."""
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2 " + os.environ.get("XLA_FLAGS", "")


def tree(leaves: int, shape: tuple[int, ...], dtype: Any, device: Any) -> dict[str, jax.Array]:
    keys = jax.random.split(jax.random.key(0), leaves)
    arrays = {f"leaf {i}": jax.random.normal(key, shape, dtype) for i, key in enumerate(keys)}
    return jax.block_until_ready(jax.device_put(arrays, device))


def builders(tx: Any, arrays: Callable[[Any], Any], host: Any, far: Any) -> dict[str, Callable[[], Contender]]:
    """The three contenders.

    Args:
        tx: the optimizer.
        arrays: makes parameters, or gradients, on a device.
        host: the device that keeps the state.
        far: the device that has parameters and gradients.
    """
    offloaded = adamx.on_host(tx, host)
    compiled = jax.jit(lambda params, state, g: adamx.step(tx, g, state, params), donate_argnums=(0, 1))

    def on_host() -> Contender:
        params, gradients = arrays(far), arrays(far)
        held = [params, offloaded.init(params)]

        def call() -> None:
            held[:] = jax.block_until_ready(adamx.step(offloaded, gradients, held[1], held[0]))

        return per_call(call)

    def step() -> Contender:
        params, gradients = arrays(host), arrays(host)
        held = [params, jax.device_put(tx.init(params), host)]

        def call() -> None:
            held[:] = jax.block_until_ready(compiled(*held, gradients))

        return per_call(call)

    def transfers() -> Contender:
        params, gradients = arrays(host), arrays(far)

        def call() -> None:
            jax.block_until_ready(jax.device_put(gradients, host))
            jax.block_until_ready(jax.device_put(params, far))

        return per_call(call)

    return {"on_host": on_host, "step": step, "transfers": transfers}


def held(device: Any) -> int:
    """Bytes of the arrays on a device."""
    arrays = [x for x in jax.live_arrays() if x.devices() == {device} and not x.is_deleted()]
    return sum({x.unsafe_buffer_pointer(): x.nbytes for x in arrays}.values())


def exact(arrays: Callable[[Any], Any], tx: Any, host: Any, far: Any) -> dict[str, Any]:
    """Elements that differ from those of the jitted step after three steps, and the most bytes on the device."""
    offloaded = adamx.on_host(tx, host)
    compiled = jax.jit(lambda params, state, g: adamx.step(tx, g, state, params), donate_argnums=(0, 1))
    params, gradients, expected = arrays(far), arrays(far), arrays(host)
    gc.collect()
    state, reference, before, seen = offloaded.init(params), tx.init(expected), held(far), list[int]()
    put = jax.device_put

    def noted(*given: Any, **more: Any) -> Any:
        moved = put(*given, **more)
        seen.append(held(far))
        return moved

    for _ in range(3):
        with mock.patch.object(jax, "device_put", noted):  # a step moves all arrays by it
            params, state = adamx.step(offloaded, gradients, state, params)
        expected, reference = compiled(expected, reference, put(gradients, host))
    pairs = zip(*map(jax.tree.leaves, ((params, state), (expected, reference))), strict=True)
    differ = sum(int(np.sum(np.asarray(x) != np.asarray(y))) for x, y in pairs)
    return {"differing": differ, "parameters and gradients": before, "most": max(*seen, held(far))}


def exact_bars(shape: tuple[int, ...], host: Any, far: Any) -> tuple[dict[str, Any], bool]:
    """What was found for each optimizer, and whether both targets are met."""
    found = {
        name: exact(functools.partial(tree, LEAVES, shape, dtype), tx, host, far)
        for name, (dtype, tx) in OPTIMIZERS.items()
    }
    rows, met = [], True
    for name, (differ, before, most) in ((name, each.values()) for name, each in found.items()):
        equal, lean = differ == 0, most <= before + 1024
        bits = f"{differ} {'holds' if equal else 'MISSED'}"
        rows.append([name, bits, f"{before:,}", f"{most:,} {'holds' if lean else 'MISSED'}"])
        met = met and equal and lean
    header = ["optimizer", "elements that differ", "bytes of parameters and gradients", "most bytes on the device"]
    print(table(header, rows), "", sep="\n")
    return found, met


def main() -> None:
    options = parser(__doc__ or "", quick="1.6 million parameters instead of 16 million")
    options.add_argument("--bars", action="store_true", help="bits and bytes alone, which every machine has the same")
    arguments = options.parse_args()
    two_cpu_devices()
    host, far = jax.devices()
    shape, budget = (QUICK_SIZE, 2.0) if arguments.quick else (SIZE, 20.0)

    print(headline(), "", sep="\n")
    bars, met = exact_bars(shape, host, far)
    if arguments.bars:
        sys.exit(not met)
    rows, found = [], {}
    for name, (dtype, tx) in OPTIMIZERS.items():
        compared = builders(tx, functools.partial(tree, LEAVES, shape, dtype), host, far)
        seconds = measure(compared, budget_s=budget, builds=1 if arguments.quick else 3)
        pairs = zip(seconds["step"], seconds["transfers"], strict=True)
        ratio = spread([own / sum(pair) for own, pair in zip(seconds["on_host"], pairs, strict=True)])
        medians = {contender: spread(values).median for contender, values in seconds.items()}
        found[name] = {"seconds": medians, "ratio": ratio}
        rows.append([name, *(f"{1e3 * s:.2f}" for s in medians.values()), str(ratio), verdict(ratio, TARGET)])
    times = [f"{contender} ms" for contender in medians]
    header = ["optimizer", *times, "on_host / (step + transfers)", f"<= {TARGET}"]
    title = f"{LEAVES} leaves of {shape[0]} x {shape[1]}, medians"
    print(title, "", table(header, rows), sep="\n")
    write_json(arguments.json, "on_host", {"optimizers": found, "bars": bars})
    sys.exit(not met)


if __name__ == "__main__":
    main()
