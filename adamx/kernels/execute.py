"""Who takes which leaf through a step, decided when JAX lowers the program."""

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp

from adamx.core.leaf import Leaf
from adamx.core.work import Work, by_xla, folds
from adamx.kernels import native
from adamx.kernels.backend import ACCELERATORS, accelerator_kernel
from adamx.kernels.call import NATIVE
from adamx.kernels.choice import choose
from adamx.kernels.layout import Form, Kernel, are_small, calls, worthwhile
from adamx.kernels.operands import of_step
from adamx.kernels.partition import has_typed_mesh, on_shards

WHOLE = (
    "the program runs on several devices, and JAX does not tell how arrays are split among them: XLA's own code steps "
    "leaves for which there is a kernel. With adamx.shard_state(tx) each device steps its shards"
)


def by_kernels(work: Work) -> tuple[Leaf, ...]:
    """The leaves after the step, by the kernel of the platform where there is one for a leaf, else by XLA."""
    flat, treedef = jax.tree.flatten(work)
    numbered: Work = treedef.unflatten(range(len(flat)))
    like, after = jax.tree.flatten(numbered.stepped())

    def run(platform: str, *arrays: jax.Array, split: bool | None = None) -> list[jax.Array]:
        given: Work = treedef.unflatten(arrays)
        kernel = _kernel_of(platform)
        if kernel and split is False:
            if platform != "cpu" and any(_possible(kernel, given)):
                warnings.warn(WHOLE, stacklevel=2)
            kernel = None
        return jax.tree.leaves(by_kernel(kernel, given, bool(split)) if kernel else by_xla(given))

    programs = {platform: functools.partial(run, platform) for platform in ("cpu", *ACCELERATORS)}
    plain = functools.partial(run, "")
    # On GPUs nothing but dithered moments has a kernel, and TPUs split no program of ours.
    gains = {"cpu": True, "gpu": work.rule.averages.draws}.get(jax.default_backend(), False)
    splits = gains and jax.device_count() > 1 and not has_typed_mesh(flat)
    return after.unflatten(choose(programs, plain, like, *map(jnp.asarray, flat), splits=splits))


def _kernel_of(platform: str) -> Kernel | None:
    if platform == "cpu":
        return NATIVE if native.backend().name == "native" else None
    return accelerator_kernel(platform)[0] if platform else None


def forms_of(kernel: Kernel, work: Work) -> list[Form | None]:
    """The form of each leaf that the kernel takes; None for those that are left to XLA."""
    return worthwhile(_possible(kernel, work), work.leaves, work.small)


def small_of(work: Work) -> tuple[bool, ...]:
    """Which leaves the native kernel leaves to XLA if they are float32, as it decides by all."""
    return are_small(_possible(NATIVE, work), work.leaves)


def _possible(kernel: Kernel, work: Work) -> list[Form | None]:
    """The form of each leaf that the kernel can take."""
    return [
        kernel.form_of(leaf, work.rule) if fold else None
        for leaf, fold in zip(work.leaves, work.each(folds), strict=True)
    ]


def by_kernel(kernel: Kernel, work: Work, split: bool = False) -> tuple[Leaf, ...]:
    """The leaves after the step, by a kernel as far as it takes them; split: each device on its shards."""
    forms = _possible(kernel, work) if split else forms_of(kernel, work)
    stepped: list[Any] = [None] * len(forms)

    def put(numbers: list[int], leaves: tuple[Leaf, ...]) -> None:
        for i, leaf in zip(numbers, leaves, strict=True):
            stepped[i] = leaf

    left = [i for i, form in enumerate(forms) if form is None]
    put(left, by_xla(work.take(left)))
    if split and len(left) < len(forms):
        taken = [i for i, form in enumerate(forms) if form is not None]
        put(taken, on_shards(functools.partial(by_kernel, kernel), work.take(taken)))
        return tuple(stepped)
    step = of_step(work)
    for form, numbers in calls(forms):
        put(numbers, kernel.call(form, work.take(numbers), step))
    return tuple(stepped)
