"""`adamx.on_host` between the device and the host: what stays where, time over the transfers', and whose numbers."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from harness import measure, spread
from on_gpu.record import Record
from on_host import LEAVES, OPTIMIZERS, builders, tree, two_cpu_devices

import adamx

SIZE, QUICK = (LEAVES, (1024, 1280)), (4, (64, 128))
"""65 million parameters in 50 leaves."""
STEPS = 3
STATS = ("bytes_in_use", "peak_bytes_in_use")


def bytes_on(device: Any, arrays: Any) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(arrays) if x.devices() == {device})


def memory(tx: Any, arrays: Callable[[Any], Any], host: Any, far: Any) -> dict[str, Any]:
    """Bytes on each side after a step, per parameter, and what the device says of itself."""
    offloaded, params, gradients = adamx.on_host(tx, host), arrays(far), arrays(far)
    size, stats = sum(x.size for x in jax.tree.leaves(params)), far.memory_stats
    held = jax.block_until_ready(adamx.step(offloaded, gradients, offloaded.init(params), params))
    sides = {"device": bytes_on(far, held), "host": bytes_on(host, held), "gradients": bytes_on(far, gradients)}
    measured = {f"device_{key}": n / size for key, n in (stats() or {}).items() if key in STATS}
    return {**{f"{side}_bytes_per_parameter": n / size for side, n in sides.items()}, **measured}


def numbers(tx: Any, arrays: Callable[[Any], Any], host: Any, far: Any) -> dict[str, Any]:
    """How many parameters differ, bit by bit, from those of the jitted step on the host, after three steps."""
    offloaded, here, gradients = adamx.on_host(tx, host), arrays(host), arrays(host)
    there = jax.device_put(here, far, may_alias=False)
    away, near = (there, offloaded.init(there)), (here, jax.device_put(tx.init(here), host))
    step = jax.jit(lambda params, state, g: adamx.step(tx, g, state, params))
    for t in range(STEPS):
        g = jax.tree.map(lambda x, t=t: (x * (t + 1.5)).astype(x.dtype), gradients)
        away = adamx.step(offloaded, jax.device_put(g, far), away[1], away[0])
        near = step(*near, g)
    pairs = zip(*(jax.tree.leaves(side[0]) for side in (away, near)), strict=True)
    unequal = sum(int((np.asarray(a) != np.asarray(b)).sum()) for a, b in pairs)
    return {"steps": STEPS, "unequal": unequal, "bitwise": unequal == 0}


def timed(tx: Any, arrays: Callable[[Any], Any], host: Any, far: Any, budget_s: float) -> dict[str, Any]:
    """Milliseconds of a step, of its transfers alone and of the host's step alone."""
    seconds = measure(builders(tx, arrays, host, far), builds=1, budget_s=budget_s)
    alone = list(zip(seconds["step"], seconds["transfers"], strict=True))

    def over(floor: list[float]) -> Any:
        return spread([own / base for own, base in zip(seconds["on_host"], floor, strict=True)])

    medians = {f"{name}_ms": spread([1e3 * s for s in values]).median for name, values in seconds.items()}
    return {**medians, "over_transfers": over(seconds["transfers"]), "over_both": over([sum(pair) for pair in alone])}


def run(record: Record, *, quick: bool, peer_python: str) -> None:
    if quick:
        two_cpu_devices()
    cpus = jax.devices("cpu")
    host, far = cpus[0], cpus[1] if quick else jax.devices()[0]
    for name, (dtype, tx) in OPTIMIZERS.items():
        large, small = (functools.partial(tree, *size, dtype) for size in (QUICK if quick else SIZE, QUICK))
        record.attempt(f"{name}: memory", functools.partial(memory, tx, large, host, far))
        record.attempt(f"{name}: numbers", functools.partial(numbers, tx, small, host, far))
        record.attempt(f"{name}: time", functools.partial(timed, tx, large, host, far, 0.3 if quick else 3.0))
