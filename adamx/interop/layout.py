"""Where the axes of a torch parameter stand in JAX."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Permutation = Sequence[int]
"""For each axis of the JAX array the torch axis that it is."""

Layout = Mapping[str, Permutation] | Callable[[str, int], Permutation | None]
"""From the path of a parameter, and its number of axes, to its permutation; none, or not in the mapping: unchanged."""

Names = Mapping[str, str] | Callable[[str], str]
"""From the path of a parameter to its name in torch."""


def flax_kernels(path: str, ndim: int) -> Permutation | None:
    """The layout of Flax: a leaf called `kernel` has torch's first two axes last, swapped.

    So the weight of a Linear, (out, in), is (in, out), that of a Conv2d, OIHW, is HWIO, and so on for any number of
    spatial axes. Everything else stays. Rearrange yourself: layers after a flattened image (torch flattens channels
    first, Flax channels last), transposed convolutions, and attention whose projections torch keeps in one array.

    Args:
        path: of the parameter, "encoder/kernel".
        ndim: its number of axes.

    Returns:
        A permutation of the axes, or None.

    Example:
        >>> import adamx
        >>> adamx.interop.flax_kernels("conv/kernel", 4), adamx.interop.flax_kernels("conv/bias", 1)
        ((2, 3, 1, 0), None)
    """
    is_kernel = path.rpartition("/")[2] == "kernel" and ndim > 1
    return (*range(2, ndim), 1, 0) if is_kernel else None


def torch_layout(path: str, ndim: int) -> Permutation | None:
    """Torch's own layout, as in Equinox: nothing moves.

    Example:
        >>> import adamx
        >>> adamx.interop.torch_layout("conv/weight", 4)
    """
    return None


def to_jax(layout: Layout, path: str, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A torch array with its axes as in JAX.

    Raises:
        ValueError: it then has not the parameter's shape.
    """
    moved = x.transpose(_permutation(layout, path, x.ndim))
    if moved.shape != shape:
        raise ValueError(
            f"torch's array for {path} has shape {x.shape}, {moved.shape} in the given layout, its parameter has "
            f'{shape}: say in layout= how its axes move, {{"{path}": (1, 0)}} or adamx.interop.flax_kernels'
        )
    return moved


def to_torch_axes(layout: Layout, path: str, x: np.ndarray) -> np.ndarray:
    """The inverse: a copy with its axes as in torch."""
    return np.array(x.transpose(np.argsort(_permutation(layout, path, x.ndim))), order="C")


def torch_name(names: Names, path: str, known: Sequence[str]) -> str:
    """The name of a parameter in torch.

    Raises:
        ValueError: there is none.
    """
    name = names(path) if callable(names) else _entry(names, path)
    if name is None or name not in known:
        came = f"names has no entry for {path}" if name is None else f"{name!r}, for {path}, is not among torch's"
        raise ValueError(f"{came}; torch's parameters are {', '.join(known)}")
    return name


def _entry(by_path: Mapping[str, Any], path: str) -> Any:
    """What a mapping has for a path; that of a Flax variable ended in "/value" in adamx 0.1."""
    return by_path.get(path, by_path.get(f"{path}/value"))


def _permutation(layout: Layout, path: str, ndim: int) -> list[int]:
    found: Any = layout(path, ndim) if callable(layout) else _entry(layout, path)
    axes = list(range(ndim)) if found is None else list(found)
    if sorted(axes) != list(range(ndim)):
        raise ValueError(f"layout of {path}: expected a permutation of {ndim} axes, got {found}")
    return axes
