"""What Pallas' two compilers, Triton for GPUs and Mosaic for TPUs, are told about the kernel."""

from typing import Any

import jax
from jax.experimental import pallas as pl

from adamx.kernels.pallas.view import GPUS, View, gpu_tiles

SINCE = {"cuda": (0, 6), "rocm": (0, 6), "tpu": (0, 10, 2)}
"""The versions of JAX that are known to compile the kernel: earlier Mosaic turns no unsigned integers into floats."""

PLATFORMS = tuple(platform for platform, version in SINCE.items() if jax.__version_info__ >= version)
"""Where there is a kernel; elsewhere XLA does the work."""


def options_for(platform: str, view: View) -> dict[str, Any]:
    """Arguments of `pallas_call`."""
    if platform in GPUS:
        from jax.experimental.pallas import triton as compiler  # noqa: PLC0415

        # TritonCompilerParams before JAX 0.7
        params: Any = getattr(compiler, "CompilerParams", None) or vars(compiler)["TritonCompilerParams"]
        tiles = gpu_tiles()
        warps = max(1, view.rows * view.block // tiles.per_warp)
        return {"compiler_params": params(num_warps=warps, num_stages=tiles.stages)}
    from jax.experimental.pallas import tpu as compiler  # noqa: PLC0415

    params = getattr(compiler, "CompilerParams", None) or vars(compiler)["TPUCompilerParams"]
    # Tiles that lie side by side share the arrays with a number for each block.
    return {"compiler_params": params(dimension_semantics=("parallel", "parallel", "arbitrary"))}


def scalars_for(platform: str) -> pl.BlockSpec:
    """Where the kernel finds the numbers of the step."""
    if platform in GPUS:
        return pl.BlockSpec()
    from jax.experimental.pallas import tpu as compiler  # noqa: PLC0415

    return pl.BlockSpec(memory_space=compiler.SMEM)
