"""The device, its memory and the versions of all that has to do with it."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from typing import Any

import jax
import jax.numpy as jnp
from on_gpu.record import Record

import adamx

PACKAGES = ("jax", "jaxlib", "optax", "numpy", "flax", "torch", "triton", "bitsandbytes", "torchao")
ASKED = "name,driver_version,memory.total,clocks.max.memory,clocks.max.sm,power.limit,ecc.mode.current"
VARIABLES = ("XLA_FLAGS", "JAX_PLATFORMS", "XLA_PYTHON_CLIENT_PREALLOCATE", "CUDA_VISIBLE_DEVICES")


def backend() -> dict[str, Any]:
    device = jax.devices()[0]
    return {"backend": jax.default_backend(), "device": device.device_kind, "devices": jax.device_count()}


def versions() -> dict[str, Any]:
    installed = {str(d.metadata["Name"]): d.version for d in importlib.metadata.distributions()}
    plugins = [name for name in installed if name.startswith("jax-cuda")]
    found = {name: installed[name] for name in (*PACKAGES, *plugins) if name in installed}
    return {"python": platform.python_version(), "adamx": adamx.__version__, **found}


def memory() -> dict[str, Any]:
    stats = jax.devices()[0].memory_stats() or {}
    return {key: stats[key] for key in ("bytes_limit", "bytes_in_use", "peak_bytes_in_use") if key in stats}


def driver() -> dict[str, Any]:
    """What the driver's own program says, where it is there."""
    if shutil.which("nvidia-smi") is None:
        return {"nvidia_smi": "not there"}
    asked = ["nvidia-smi", f"--query-gpu={ASKED}", "--format=csv,noheader"]
    found = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False).stdout.strip()
    return dict(zip(ASKED.replace(".", "_").split(","), found.split(", "), strict=False))


def kernels() -> dict[str, Any]:
    """What runs the step on each side, and whether a first program runs at all."""
    sides = {side: adamx.kernels.backend(side) for side in ("cpu", "cuda")}
    total = float(jax.jit(jnp.sum)(jnp.ones(1024)))
    return {"sum_of_1024_ones": total, **{side: f"{found.name} ({found.detail})" for side, found in sides.items()}}


def run(record: Record, *, quick: bool, peer_python: str) -> None:
    for case, find in {"backend": backend, "versions": versions, "driver": driver, "kernels": kernels}.items():
        record.attempt(case, find)
    record.attempt("processor", lambda: {"cores": len(os.sched_getaffinity(0)), "cpu_devices": len(jax.devices("cpu"))})
    record.attempt("memory", memory)
    record.attempt("environment", lambda: {name: os.environ.get(name, "unset") for name in VARIABLES})
