"""What is compared: optax's optimizers, twice, beside adamx's, composed and fused, by how they hold moments."""

from collections.abc import Callable
from typing import Any

import optax
from workloads import Optimizer

import adamx

THEIRS, FLOOR, OURS = "optax", "optax again", "adamx"
FUSED, FUSED_HALF, FUSED_BYTE = "fused", "fused bf16", "fused int8"

HALF = {"mu_dtype": "bfloat16", "nu_dtype": "bfloat16"}
BYTE = {"mu_dtype": adamx.storage.Int8(), "nu_dtype": adamx.storage.Int8()}
STORED = {FUSED: {}, FUSED_HALF: HALF, FUSED_BYTE: BYTE}

PEERS = {"torch fused": "torch-fused", "torch foreach": "torch-foreach", "DeepSpeed": "deepspeed"}
"""Optimizers of other libraries for CPUs, by their names in `peers.py`."""

Make = Callable[..., optax.GradientTransformation]


def beside(theirs: Make, ours: Make, *given: Any, **named: Any) -> dict[str, Optimizer]:
    """The contenders by name, all with the same hyperparameters."""
    makers = {THEIRS: theirs, FLOOR: theirs, OURS: ours}
    composed = {name: Optimizer(make(*given, **named)) for name, make in makers.items()}
    return composed | {name: Optimizer(ours(*given, **named, **stored), adamx.step) for name, stored in STORED.items()}


def adam() -> dict[str, Optimizer]:
    return beside(optax.adam, adamx.adam, 1e-3)


def adamw() -> dict[str, Optimizer]:
    """With weight decay and a schedule."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1e-3, warmup_steps=100, decay_steps=10_000)
    return beside(optax.adamw, adamx.adamw, schedule, weight_decay=0.01)
