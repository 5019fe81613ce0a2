"""`explain`: which way a step takes, leaf by leaf, and why."""

from collections import Counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamx.core.errors import transformation
from adamx.core.leaf import Leaf
from adamx.core.step import Pass, Weights, about, take_step
from adamx.core.work import Work, folds
from adamx.footprint import state_bytes
from adamx.kernels import native
from adamx.kernels.backend import accelerator_kernel, backend
from adamx.kernels.call import NATIVE
from adamx.kernels.execute import forms_of
from adamx.kernels.layout import Kernel, ends_within_a_byte, has_24_bits
from adamx.storage.codec import is_half, is_quantized
from adamx.trees import named_leaves, nbytes
from adamx.variables import bare


class LeafStep(NamedTuple):
    """How one leaf of the parameters steps.

    Attributes:
        path: of the leaf.
        shape: of the parameter.
        dtype: of the parameter.
        moments: how m and v are kept: "float32", "int8 + uint8"; "" where `update` runs.
        executor: "native", "pallas", "xla", "composed": `update` and `apply_updates`, or "none": it is frozen.
        why: why it is not a kernel; "" if it is.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    moments: str
    executor: str
    why: str


class Explanation(NamedTuple):
    """How an optimizer steps. Printed, it is a table.

    Attributes:
        leaves: of the parameters, in their order.
        one_pass: whether `adamx.step` makes one pass over memory.
        why: why it does not; "" if it does.
        state_bytes: of the whole state.
        undonated: bytes of parameters and state that the training step does not donate, None if no step was given.
    """

    leaves: tuple[LeafStep, ...]
    one_pass: bool
    why: str
    state_bytes: int
    undonated: int | None = None

    def __str__(self) -> str:
        header = ("leaf", "shape", "dtype", "moments", "executor", "why not a kernel")
        rows = [header, *(_row(leaf) for leaf in self.leaves)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        parameters = sum(int(np.prod(leaf.shape)) for leaf in self.leaves)
        passes = "one pass over memory" if self.one_pass else f"update and apply_updates: {self.why}"
        each = f", {self.state_bytes / parameters:.2f} a parameter" if parameters else ""
        lines.append(f"{passes}; {self.state_bytes:,} bytes of state{each}")
        if self.undonated:
            lines.append(f"{self.undonated:,} bytes are {UNDONATED}")
        return "\n".join(lines)


UNDONATED = (
    "not donated: XLA copies these parameters and states in each step. Donate them, "
    "jax.jit(step, donate_argnums=(0, 1)) say"
)


def _row(leaf: LeafStep) -> tuple[str, ...]:
    why = "" if leaf.executor == "composed" else leaf.why  # the last line says it
    return leaf.path, "x".join(map(str, leaf.shape)) or "scalar", leaf.dtype, leaf.moments, leaf.executor, why


def explain(
    tx: optax.GradientTransformation,
    params: optax.Params,
    platform: str = "cpu",
    step: jax.stages.Lowered | jax.stages.Compiled | None = None,
) -> Explanation:
    """Tells for each leaf which code `adamx.step` runs, and why it is not a kernel.

    Nothing is computed: the step is traced with shapes alone. Gradients are taken to be of the parameters' dtypes.

    Args:
        tx: any transformation.
        params: the parameters, or their `jax.ShapeDtypeStruct`.
        platform: "cpu", "cuda", "rocm" or "tpu".
        step: the lowered training step, `train_step.lower(params, ...)` of the jitted one: the explanation then tells
            how many bytes of parameters and state it copies because they are not donated.

    Returns:
        An `Explanation`; print it.

    Raises:
        ValueError, TypeError: as `tx.init` and `adamx.step` do; another platform; a step that is not lowered.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> params = {"w": jnp.zeros((512, 512)), "b": jnp.zeros(512)}
        >>> found = adamx.explain(adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adamw(1e-3)), params)
        >>> found.one_pass, found.state_bytes
        (True, 2101252)
        >>> adamx.explain(optax.chain(optax.clip(1.0), adamx.adamw(1e-3)), params).why
        'optax.chain hides the one pass of adamx: use adamx.chain, with the same state'
    """
    kernel, problem = _kernel(platform)
    shapes = jax.eval_shape(lambda: bare(params))
    state = jax.eval_shape(transformation(tx).init, shapes)
    found: dict[int, tuple[str, str, str]] = {}

    def note(work: Work) -> tuple[Leaf, ...]:
        forms = [None] * len(work.leaves) if kernel is None else forms_of(kernel, work)
        for i, (place, form) in enumerate(zip(work.places, forms, strict=True)):
            executor, why = ("xla", problem or _why_not(kernel, work, i)) if form is None else (_name(platform), "")
            found[place] = _moments(work.leaves[i]), executor, why
        return work.stepped()

    def traced(gradients: Any, state: Any, params: Any) -> Any:
        moved = take_step(tx, gradients, bare(state), Weights(params), Pass(note, shapes_only=True))[0].params
        pairs = zip(jax.tree.leaves(params), jax.tree.leaves(moved), strict=True)
        found.update(
            {i: ("", "none", "frozen") for i, (before, after) in enumerate(pairs) if i not in found and after is before}
        )
        return moved

    jax.eval_shape(traced, shapes, state, shapes)
    names = named_leaves(shapes)
    why = about(tx).why if len(found) < len(names) else ""
    leaves = [
        LeafStep(name, tuple(x.shape), str(x.dtype), *found.get(i, ("", "composed", why)))
        for i, (name, x) in enumerate(names.items())
    ]
    undonated = None if step is None else _undonated(step, (shapes, state))
    return Explanation(tuple(leaves), not why, why, state_bytes(state).total, undonated)


def _moments(leaf: Leaf) -> str:
    """The dtypes of the moments of a leaf, of their codes where they are quantized."""
    kept = (jax.tree.leaves(stored)[0].dtype.name for stored in (leaf.mu, leaf.nu))
    return " + ".join(dict.fromkeys(kept))


def _undonated(step: jax.stages.Lowered | jax.stages.Compiled, stepped: Any) -> int:
    """The bytes of arrays for which a jitted function has no donated argument of their shape and dtype."""
    try:
        arguments = jax.tree.leaves(step.args_info)
    except (AttributeError, TypeError):  # what nnx.jit compiles to raises the latter
        raise TypeError(f"step must be a lowered step, train_step.lower(params, ...), got {type(step)}") from None
    donated = Counter((tuple(x.shape), x.dtype) for x in arguments if x.donated)
    missing = Counter((tuple(x.shape), jnp.dtype(x.dtype)) for x in jax.tree.leaves(stepped)) - donated
    return sum(count * nbytes(jax.ShapeDtypeStruct(*kind)) for kind, count in missing.items())


def _name(platform: str) -> str:
    return "native" if platform == "cpu" else "pallas"


def _kernel(platform: str) -> tuple[Kernel | None, str]:
    """The kernel of a platform, or None and why there is none."""
    backend(platform)  # raises for another platform
    if platform != "cpu":
        return accelerator_kernel(platform)
    found = native.backend()
    return (NATIVE, "") if found.name == "native" else (None, found.detail)


def _why_not(kernel: Kernel | None, work: Work, i: int) -> str:
    """Why XLA takes a leaf for which there is a kernel."""
    leaf = work.leaves[i]
    if not folds(work.terms(i)):
        return "several weight decays, one of them cautious"
    if kernel is not None and kernel.form_of(leaf._replace(norms=None), work.rule) is not None:
        small = kernel.form_of(leaf, work.rule) is not None
        return "small: XLA's own loop is as fast" if small else "XLA takes norms: this kernel sees tiles, not leaves"
    if work.rule.averages.dithers_sum:
        return "β2 this close to 1 dithers the sum of v"
    return _untaken(kernel, leaf)


def _untaken(kernel: Kernel | None, leaf: Leaf) -> str:
    """What of a leaf a kernel does not take."""
    if kernel is not NATIVE:
        if has_24_bits(leaf):
            return "XLA rounds master weights to 24 bits"
        if not any(is_quantized(x) or is_half(jnp.result_type(x)) for x in (leaf.mu, leaf.nu)):
            return "float32 moments: XLA's own loop is one pass"
    elif ends_within_a_byte(leaf):
        return "int4 codes: with an odd last axis rows end within a byte"
    return "the kernel does not take this shape, dtype or storage"
