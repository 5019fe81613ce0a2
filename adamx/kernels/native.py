"""The native library: found, checked and registered with XLA, or the reason why not."""

import ctypes
import functools
import re
from pathlib import Path
from typing import NamedTuple

import jax

TARGET = "adamx_step"
"""The name under which XLA knows the kernel."""

INTERFACE = 6
"""The version of what this package and its kernel agree on: `kInterface` in `adamx/kernels/cpu/operands.h`."""


class Backend(NamedTuple):
    """What runs the fused step on a platform.

    Attributes:
        name: "native", "pallas" or "xla".
        detail: the instructions that the native kernel uses, which moments Pallas takes, or why there is no kernel.
    """

    name: str
    detail: str

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"


@functools.cache
def backend() -> Backend:
    """The native kernel and its instructions, or XLA and why."""
    found = libraries()
    if not found:
        return Backend("xla", "the kernel was not built: Windows, or no C++17 compiler when adamx was installed")
    try:
        library = ctypes.CDLL(str(found[0]))
    except OSError as error:
        return Backend("xla", f"the kernel cannot be loaded: {error}")
    if not hasattr(library, "adamx_interface") or library.adamx_interface() != INTERFACE:
        return Backend("xla", "the kernel was built for another version of adamx: install it again")
    built, running = (library.adamx_api_major(), library.adamx_api_minor()), _running_api()
    if built[0] != running[0] or built[1] > running[1]:
        versions = [".".join(map(str, version)) for version in (built, running)]
        return Backend("xla", "the kernel was built for version {} of XLA's interface, this is {}".format(*versions))
    library.adamx_instructions.restype = ctypes.c_char_p
    jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(library.adamx_step), platform="cpu")
    return Backend("native", library.adamx_instructions().decode())


def libraries() -> list[Path]:
    """Where the native library lies: one place, or none where it was not built."""
    places = [Path(folder) / "cpu" / "adamx_cpu.so" for folder in _folders()]
    return [place for place in places if place.exists()]


def _folders() -> list[str]:
    """Where this package lies: in an editable install the sources in one place, what was built in another."""
    from adamx import kernels  # noqa: PLC0415

    return list(kernels.__path__)


def _running_api() -> tuple[int, int]:
    """The version of XLA's foreign function interface in the jaxlib at hand: a newer one breaks its CPU backend."""
    header = (Path(jax.ffi.include_dir()) / "xla" / "ffi" / "api" / "c_api.h").read_text()
    major, minor = (re.search(rf"#define XLA_FFI_API_{part} (\d+)", header) for part in ("MAJOR", "MINOR"))
    assert major is not None
    assert minor is not None
    return int(major[1]), int(minor[1])
