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
    arrays = list(map(arrays_of, work.leaves))
    for leaf, column in zip(work.leaves, arrays, strict=True):
        operands.append(leaf.gradient)
        for array in column:
            aliases[len(operands)] = len(outputs)
            operands.append(array)
            outputs.append(jax.ShapeDtypeStruct(jnp.shape(array), jnp.result_type(array)))
    averages = work.rule.averages
    measured = work.leaves[0].norms is not None
    if measured:
        outputs.append(jax.ShapeDtypeStruct((len(work.leaves), 3), jnp.float32))
    stepped = jax.ffi.ffi_call(TARGET, outputs, input_output_aliases=aliases)(
        *operands,
        weights=np.int64(form.weights),
        mu_storage=np.int64(form.mu[0]),
        mu_block=np.int64(form.mu[1]),
        nu_storage=np.int64(form.nu[0]),
        nu_block=np.int64(form.nu[1]),
        norms=measured,
        nesterov=work.rule.nesterov,
        precise1=averages.precise and float(averages.b1) >= 0.5,
        precise2=averages.precise and float(averages.b2) >= 0.5,
    )
    norms = stepped[-1] if measured else [None] * len(work.leaves)
    after = tuple([leaf._replace(gradient=None, norms=None) for leaf in work.leaves])
    found = jax.tree.unflatten(jax.tree.structure(after), stepped[: len(aliases)])
    return tuple([leaf._replace(norms=own) for leaf, own in zip(found, norms, strict=True)])


NATIVE = Kernel(form_of, call_native)
