"""The native kernel on leaves of one form."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamx.kernels.layout import Form, Leaf, arrays_of
from adamx.kernels.native import TARGET

FIRST = 3
"""The number of the first leaf's first array: numbers, counts and salts come before it."""

CHEAP = 1000
"""Operations. XLA:CPU runs a program of fewer on the thread that calls."""


def call_kernel(form: Form, leaves: list[Leaf], numbers: jax.Array, counts: jax.Array, salts: jax.Array, **rule: bool):
    """The step on leaves, in place.

    Args:
        form: of all of them.
        leaves: what the step starts from.
        numbers: the 11 of the step, float32; see `adamx/kernels/cpu/operands.h`.
        counts: the two counters of the dither, uint32.
        salts: 3 numbers a leaf, uint32.
        **rule: nesterov, precise1, precise2, and whether the leaf is alone in its tree.

    Returns:
        The leaves after the step.
    """
    operands: list[Any] = [numbers, counts, salts]
    outputs: list[Any] = []
    aliases: dict[int, int] = {}
    for leaf in leaves:
        operands.append(leaf.gradient)
        for array in arrays_of(leaf):
            aliases[len(operands)] = len(outputs)
            operands.append(array)
            outputs.append(jax.ShapeDtypeStruct(jnp.shape(array), jnp.result_type(array)))
    attributes = {"weights": form.weights}
    for name, (storage, block) in {"mu": form.mu, "nu": form.nu}.items():
        attributes |= {f"{name}_storage": storage, f"{name}_block": block}
    kernel = jax.ffi.ffi_call(TARGET, outputs, input_output_aliases=aliases)
    stepped = iter(kernel(*operands, **{name: np.int64(value) for name, value in attributes.items()}, **rule))

    def after(leaf: Leaf) -> Leaf:
        changed = (leaf.param, leaf.remainder, leaf.mu, leaf.nu)
        new = jax.tree.unflatten(jax.tree.structure(changed), [next(stepped) for _ in arrays_of(leaf)])
        return Leaf(None, *new)

    return [after(leaf) for leaf in leaves]


def made_expensive(counts: jax.Array, numbers: jax.Array) -> jax.Array:
    """The counts, by way of so many operations that the program does not look cheap.

    XLA counts none for a call into a kernel, so that a step without gradients would run on the thread that calls. What
    is added is 0, as the least multiple of bits that XLA does not know.
    """
    changes = jax.lax.bitcast_convert_type(numbers[4], jnp.uint32)  # 1 - β1^t, from the count
    least = jnp.min(jax.lax.iota(jnp.uint8, CHEAP) * changes.astype(jnp.uint8))
    return counts + least.astype(jnp.uint32)
