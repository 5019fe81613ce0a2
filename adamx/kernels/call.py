"""The native kernel on leaves of one form."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamx.core.leaf import Leaf
from adamx.core.work import Work
from adamx.kernels.layout import Form, Kernel, arrays_of, form_of
from adamx.kernels.native import TARGET
from adamx.kernels.operands import OfStep, scalars


def call_native(form: Form, work: Work, step: OfStep) -> tuple[Leaf, ...]:
    """The step on leaves, in place.

    Args:
        form: of all of them.
        work: on them.
        step: the scalars that all calls share.

    Returns:
        The leaves after the step.
    """
    operands: list[Any] = [*scalars(work, step)]
    outputs: list[Any] = []
    aliases: dict[int, int] = {}
    for leaf in work.leaves:
        operands.append(leaf.gradient)
        for array in arrays_of(leaf):
            aliases[len(operands)] = len(outputs)
            operands.append(array)
            outputs.append(jax.ShapeDtypeStruct(jnp.shape(array), jnp.result_type(array)))
    attributes = {"weights": form.weights}
    for name, (storage, block) in {"mu": form.mu, "nu": form.nu}.items():
        attributes |= {f"{name}_storage": storage, f"{name}_block": block}
    averages = work.rule.averages
    precise1, precise2 = (averages.precise and float(b) >= 0.5 for b in (averages.b1, averages.b2))
    measured = any(leaf.norms is not None for leaf in work.leaves)
    if measured:
        outputs.append(jax.ShapeDtypeStruct((len(work.leaves), 3), jnp.float32))
    flags = {"norms": measured, "nesterov": work.rule.nesterov, "precise1": precise1, "precise2": precise2}
    kernel = jax.ffi.ffi_call(TARGET, outputs, input_output_aliases=aliases)
    found = kernel(*operands, **{name: np.int64(value) for name, value in attributes.items()}, **flags)
    stepped, norms = iter(found), found[-1] if measured else [None] * len(work.leaves)

    def after(i: int, leaf: Leaf) -> Leaf:
        changed = (leaf.param, leaf.remainder, leaf.mu, leaf.nu)
        arrays = jax.tree.unflatten(jax.tree.structure(changed), [next(stepped) for _ in arrays_of(leaf)])
        return Leaf(None, *arrays)._replace(norms=norms[i])

    return tuple(after(i, leaf) for i, leaf in enumerate(work.leaves))


NATIVE = Kernel(form_of, call_native)
