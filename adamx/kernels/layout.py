"""What a kernel is: which leaves it takes, in which form, and what takes them through a step."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from adamx.core.leaf import MASTER, PLAIN, STOCHASTIC, Leaf, Rule
from adamx.core.work import Work
from adamx.kernels.operands import OfStep
from adamx.storage import Float, Int4, Int8
from adamx.storage.codec import Codec, Quantized, Stored
from adamx.storage.int4 import CODES

MAX_RANK = 8
BLOCKS = range(16, 1024 + 1, 16)
"""Sizes of blocks: whole vectors, and no more than the kernel works on at a time."""
MANY, LITTLE, TINY = 128, 16_384, 512
"""Leaves from which on the kernel takes all; below that, elements of a tree and of a leaf for which it takes none."""

ALIASED_PER_CALL = 96
"""Arrays that one call updates in place; the time to compile a call grows with their square."""

FLOATS = (jnp.float32, jnp.bfloat16, jnp.float16)
FLOAT32, NEAREST, DITHERED, INT8, INT4 = range(5)
"""How a moment is stored, as the kernel numbers it."""

NARROW = 3
"""What is behind a bfloat16 parameter beside PLAIN, MASTER and STOCHASTIC: a master weight of 24 bits."""


class Form(NamedTuple):
    """What the leaves of one call have in common.

    Attributes:
        dtypes: of gradient and parameter, by name.
        weights: PLAIN, MASTER, STOCHASTIC or NARROW.
        mu: how m is stored, and its block.
        nu: how v is stored, and its block.
    """

    dtypes: tuple[str, str]
    weights: int
    mu: tuple[int, int]
    nu: tuple[int, int]

    @property
    def aliased(self) -> int:
        """How many arrays of a leaf are updated in place."""
        return 3 + (self.weights in (MASTER, NARROW)) + (self.mu[0] >= INT8) + (self.nu[0] >= INT8)


WHOLE = {Form((g, "float32"), PLAIN, (FLOAT32, 1), (FLOAT32, 1)) for g in ("float32", "bfloat16", "float16")}
"""The forms of float32 leaves, whatever their gradients."""


class Kernel(NamedTuple):
    """What takes leaves through the whole step.

    Attributes:
        form_of: from a leaf and the rule of the step to the form of the leaf, or None where XLA must take it.
        call: from a form, the work on leaves of it and the scalars of the step to the leaves after it.
    """

    form_of: Callable[[Leaf, Rule], Form | None]
    call: Callable[[Form, Work, OfStep], tuple[Leaf, ...]]


def form_of(leaf: Leaf, rule: Rule) -> Form | None:
    """The form of a leaf, or None where XLA must take it."""
    if rule.averages.dithers_sum:
        return None
    g, p = jnp.result_type(leaf.gradient), jnp.result_type(leaf.param)
    if g not in FLOATS or p not in FLOATS or jnp.size(leaf.param) == 0 or jnp.ndim(leaf.param) > MAX_RANK:
        return None
    weights = PLAIN if p == jnp.float32 else NARROW if has_24_bits(leaf) else rule.behind
    if weights == STOCHASTIC and p != jnp.bfloat16:
        return None
    mu, nu = _storage(leaf.mu, rule.averages.mu_codec), _storage(leaf.nu, rule.averages.nu_codec)
    if mu is None or nu is None or max(mu[1], nu[1]) % min(mu[1], nu[1]):
        return None
    return None if ends_within_a_byte(leaf) else Form((g.name, p.name), weights, mu, nu)


def has_24_bits(leaf: Leaf) -> bool:
    """Whether the master weight of a leaf has 24 bits."""
    return leaf.remainder is not None and jnp.result_type(leaf.remainder) == jnp.uint8


def ends_within_a_byte(leaf: Leaf) -> bool:
    """Whether a leaf has codes of four bits whose rows begin within a byte."""
    shape = jnp.shape(leaf.param)
    kept = [stored.codes.dtype for stored in (leaf.mu, leaf.nu) if isinstance(stored, Quantized)]
    return CODES in kept and shape[-1] % 2 == 1 and math.prod(shape[:-1]) > 1


def _storage(stored: Stored, codec: Codec) -> tuple[int, int] | None:
    if isinstance(stored, Quantized):
        if type(codec) is Int8 and stored.codes.dtype != CODES:
            found = INT8, codec.block_size
        elif type(codec) is Int4 and stored.codes.dtype == CODES:
            found = INT4, codec.block_size
        else:
            return None
        return found if found[1] in BLOCKS else None
    if type(codec) not in (Float, Int8, Int4):
        return None
    dtype = jnp.result_type(stored)
    if dtype == jnp.bfloat16:
        return (DITHERED if codec.dithered else NEAREST), 1
    return (FLOAT32, 1) if dtype == jnp.float32 else None


def worthwhile(
    forms: list[Form | None], leaves: Sequence[Leaf], small: tuple[bool, ...] | None = None
) -> list[Form | None]:
    """The forms, without those of float32 leaves that XLA steps as fast: in a little tree, and tiny ones among few.

    A call and the numbers for it cost microseconds, each array a fraction of one; XLA's own loops are done by then.
    From some hundred leaves on, each of its loops costs more, which is run from cold.

    Args:
        forms: of the leaves.
        leaves: all of a tree, or some of one, or shards, for which it is known what is small.
        small: whether a leaf is left to XLA if it is float32; None: as `are_small` finds.
    """
    small = are_small(forms, leaves) if small is None else small
    return [None if form in WHOLE and little else form for form, little in zip(forms, small, strict=True)]


def are_small(forms: list[Form | None], leaves: Sequence[Leaf]) -> tuple[bool, ...]:
    """Which leaves of a tree are left to XLA if they are float32."""
    sizes = [jnp.size(leaf.param) for leaf in leaves]
    known = [size for form, size in zip(forms, sizes, strict=True) if form in WHOLE]
    limit = 0 if len(known) >= MANY else TINY if sum(known) >= LITTLE else LITTLE
    return tuple([size < limit for size in sizes])


def calls(forms: list[Form | None]) -> list[tuple[Form, list[int]]]:
    """The leaves of each call, by number: of one form, and as many as compile quickly together."""
    by_form: dict[Form, list[int]] = {}
    for number, form in enumerate(forms):
        if form is not None:
            by_form.setdefault(form, []).append(number)
    found: list[tuple[Form, list[int]]] = []
    for form, numbers in by_form.items():
        size = max(1, ALIASED_PER_CALL // form.aliased)
        found += [(form, numbers[start : start + size]) for start in range(0, len(numbers), size)]
    return found


def arrays_of(leaf: Leaf) -> list[jax.Array]:
    """The arrays of a leaf that the kernel updates, in its order."""
    return jax.tree.leaves((leaf.param, leaf.remainder, leaf.mu, leaf.nu))
