"""`backend`: what runs the fused step on a platform, and why."""

from adamx.kernels import native
from adamx.kernels.layout import Kernel
from adamx.kernels.native import Backend

ACCELERATORS = ("cuda", "rocm", "tpu")
"""Platforms for which there may be a kernel written in Pallas."""


def accelerator_kernel(platform: str) -> tuple[Kernel | None, str]:
    """The kernel for an accelerator, or None and why there is none."""
    try:
        from adamx.kernels.pallas.call import pallas_kernel, problem_on  # noqa: PLC0415 - JAX may come without Pallas
    except Exception as error:
        return None, f"Pallas cannot be imported: {error}"
    problem = problem_on(platform)
    return (None, problem) if problem else (pallas_kernel(platform), "")


def backend(platform: str = "cpu") -> Backend:
    """Tells what runs the fused step on a platform: a kernel, or XLA's own code and the reason.

    On CPUs the kernel is native code that uses the widest instructions of the processor. For tests and bug reports the
    environment variable `ADAMX_INSTRUCTIONS`, read once, asks for others: "avx512", "avx2" or "portable". What the
    processor lacks is not used. On GPUs and TPUs the kernel is written in Pallas and takes int8 and dithered moments.
    Where Pallas cannot lower it, because JAX is too old or too new or wants to see the device, XLA's own code runs.

    Args:
        platform: "cpu", "cuda", "rocm" or "tpu", the platform that a program is compiled for.

    Returns:
        A name, "native", "pallas" or "xla", and a detail: the instructions, or the reason why there is no kernel.

    Raises:
        ValueError: another platform.

    Example:
        >>> import adamx
        >>> adamx.kernels.backend().name in ("native", "xla")
        True
        >>> adamx.kernels.backend("tpu").name in ("pallas", "xla")
        True
    """
    if platform == "cpu":
        return native.backend()
    if platform not in ACCELERATORS:
        raise ValueError(f'platform must be "cpu", "cuda", "rocm" or "tpu", got {platform!r}')
    kernel, problem = accelerator_kernel(platform)
    return Backend("pallas", "takes int8 and dithered moments") if kernel else Backend("xla", problem)
