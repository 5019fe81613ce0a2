"""Who takes which leaf through a step, decided when JAX lowers the program."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from adamx.core.leaf import Leaf
from adamx.core.work import Work, by_xla, folds
from adamx.kernels import native
from adamx.kernels.backend import ACCELERATORS, accelerator_kernel
from adamx.kernels.call import NATIVE
from adamx.kernels.choice import choose
from adamx.kernels.layout import Form, Kernel, calls, least, worthwhile
from adamx.kernels.operands import of_step


def by_kernels(work: Work) -> tuple[Leaf, ...]:
    """The leaves after the step, by the kernel of the platform where there is one for a leaf, else by XLA."""
    flat, treedef = jax.tree.flatten(work)
    numbered: Work = treedef.unflatten(range(len(flat)))
    like, after = jax.tree.flatten(tuple(leaf._replace(gradient=None) for leaf in numbered.leaves))

    def run(kernel: Kernel | None, *arrays: jax.Array) -> list[jax.Array]:
        given: Work = treedef.unflatten(arrays)
        return jax.tree.leaves(by_xla(given) if kernel is None else by_kernel(kernel, given))

    def on_accelerator(platform: str, *arrays: jax.Array) -> list[jax.Array]:
        return run(accelerator_kernel(platform)[0], *arrays)

    plain = functools.partial(run, None)
    on_cpu = functools.partial(run, NATIVE) if native.backend().name == "native" else plain
    others = {platform: functools.partial(on_accelerator, platform) for platform in ACCELERATORS}
    return after.unflatten(choose(on_cpu, plain, like, *map(jnp.asarray, flat), others=others))


def forms_of(kernel: Kernel, work: Work) -> list[Form | None]:
    """The form of each leaf that the kernel takes; None for those that are left to XLA."""
    return worthwhile(_possible(kernel, work), work.leaves, work.least)


def least_of(work: Work) -> int:
    """The elements below which the native kernel leaves a float32 leaf to XLA, as it decides by all leaves."""
    return least(_possible(NATIVE, work), work.leaves)


def _possible(kernel: Kernel, work: Work) -> list[Form | None]:
    """The form of each leaf that the kernel can take."""
    return [
        kernel.form_of(leaf, work.rule) if fold else None
        for leaf, fold in zip(work.leaves, work.each(folds), strict=True)
    ]


def by_kernel(kernel: Kernel, work: Work) -> tuple[Leaf, ...]:
    """The leaves after the step, by a kernel as far as it takes them."""
    forms = forms_of(kernel, work)
    stepped: list[Any] = [None] * len(forms)

    def put(numbers: list[int], leaves: tuple[Leaf, ...]) -> None:
        for i, leaf in zip(numbers, leaves, strict=True):
            stepped[i] = leaf

    left = [i for i, form in enumerate(forms) if form is None]
    put(left, by_xla(work.take(left)))
    step = of_step(work)
    for form, numbers in calls(forms):
        put(numbers, kernel.call(form, work.take(numbers), step))
    return tuple(stepped)
