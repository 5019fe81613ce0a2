"""The Pallas kernel on one leaf: which leaves it takes, and the call."""

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from adamx.core.averages import Averages, of_squares
from adamx.core.leaf import MASTER, PLAIN, Leaf, Numbers, Rule, Term
from adamx.core.message import Moments
from adamx.core.work import Tail, Work, decays
from adamx.kernels.layout import DITHERED, FLOAT32, INT8, Form, Kernel, arrays_of, form_of
from adamx.kernels.operands import OfStep, Scalars, of_step, scalars
from adamx.kernels.pallas.compilers import PLATFORMS, SINCE, options_for, scalars_for
from adamx.kernels.pallas.tile import step_tile
from adamx.kernels.pallas.view import GPUS, LANES, View, places, view_of
from adamx.storage import Float, Int8, blocks
from adamx.storage.codec import Codec, Quantized, is_quantized
from adamx.storage.on_blocks import InBlocks

T = TypeVar("T")

SMALL = 1 << 14
"""Leaves with fewer elements cost what it takes to start a kernel."""

FEW_ROWS = 32
"""On a TPU leaves with fewer in their last axis but one would make short tiles: bytes lie in memory by 32 rows."""


def pallas_kernel(platform: str, *, interpret: bool = False) -> Kernel:
    """The kernel for a platform, "cuda", "rocm" or "tpu"; interpreted as plain JAX operations it runs on any."""

    def takes(leaf: Leaf, rule: Rule) -> Form | None:
        form = pallas_form(leaf, rule, platform)
        return form if form is None or interpret or not problem(form, platform) else None

    return Kernel(takes, functools.partial(call_pallas, platform=platform, interpret=interpret))


def pallas_form(leaf: Leaf, rule: Rule, platform: str) -> Form | None:
    """The form of a leaf, or None where XLA must take it, or does as well: moments in float32 are one loop there.

    A tile does not know the norms of its leaf: XLA takes all leaves of a step that is asked for them. On a TPU it also
    takes rows of one quantized block: the kernel's scales would be padded to 128 lanes, 64 bytes per parameter, not 22.
    """
    form, shape = form_of(leaf, rule), jnp.shape(leaf.param)
    if form is None or leaf.norms is not None or "float16" in form.dtypes or math.prod(shape) < max(SMALL, 1):
        return None
    block = block_of(form)
    gains = {INT8, DITHERED} & {form.mu[0], form.nu[0]}
    if not gains or block is None or shape[-1:] == () or shape[-1] % block:
        return None
    one_block = INT8 in gains and shape[-1] == block
    if platform not in GPUS and (block % LANES or math.prod(shape[-2:-1]) < FEW_ROWS or one_block):
        return None
    return form


def problem(form: Form, platform: str) -> str:
    """Why the kernel cannot be lowered for leaves of a form; "" where it can.

    Asked of the kernel itself on one tile: Pallas may be too old, may lack a compiler or look for a device that is not
    there, and none of that may raise in a program that XLA can run without it.
    """
    mesh_of_devices = getattr(jax.sharding, "get_abstract_mesh", lambda: None)  # may name a device that is not at hand
    return _problem(form, platform, mesh_of_devices())


@functools.cache
def _problem(form: Form, platform: str, _: Any) -> str:
    if platform not in PLATFORMS:
        since = ".".join(map(str, SINCE[platform]))
        return f"JAX {jax.__version__} does not compile the kernel for {platform}: {since} and newer do"
    work = _example(form)

    def step(work: Work) -> tuple[Leaf, ...]:
        return call_pallas(form, work, of_step(work), platform=platform)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            jax.jit(step).trace(work).lower(lowering_platforms=(platform,))
    except Exception as error:
        return f"Pallas cannot lower the kernel: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return ""


def problem_on(platform: str) -> str:
    """Why there is no kernel for int8 moments, the least that it takes; "" where there is one."""
    return problem(Form(("float32", "float32"), PLAIN, (INT8, LANES), (INT8, LANES)), platform)


def _example(form: Form) -> Work:
    """The shapes of a step on a small leaf of a form."""
    block = block_of(form)
    assert block is not None

    def elements(dtype: Any, shape: tuple[int, ...] = (FEW_ROWS, block)) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    def codec(kind: int) -> Codec:
        return Int8(block) if kind == INT8 else Float(None if kind == FLOAT32 else "bfloat16", kind == DITHERED)

    def stored(kind: int, codes: Any) -> Any:
        if kind == INT8:
            return Quantized(elements(codes), elements(jnp.float32, (FEW_ROWS, 1, 2)))
        return elements(jnp.float32 if kind == FLOAT32 else jnp.bfloat16)

    remainder = elements(jnp.uint16) if form.weights == MASTER else None
    moments = stored(form.mu[0], jnp.int8), stored(form.nu[0], jnp.uint8)
    leaf = Leaf(elements(form.dtypes[0]), elements(form.dtypes[1]), remainder, *moments)
    number, count = elements(jnp.float32, ()), elements(jnp.uint32, ())
    averages = Averages(of_squares, Moments, 0.9, 0.999, codec(form.mu[0]), codec(form.nu[0]), False)
    rule, tail = Rule(averages, 1e-8, False, form.weights), Tail((Term(number, number),), (0,))
    return Work(Numbers._make([number] * 8 + [count] * 2), (leaf,), (tail,), None, rule, ((0, 0),), (0,))


def block_of(form: Form) -> int | None:
    """The width of a tile; None where the two moments want tiles of their own."""
    sizes = {size for storage, size in (form.mu, form.nu) if storage == INT8} or {LANES}
    return sizes.pop() if len(sizes) == 1 else None


def call_pallas(form: Form, work: Work, step: OfStep, *, platform: str, interpret: bool = False) -> tuple[Leaf, ...]:
    """The step on leaves, in place.

    Args:
        form: of all of them.
        work: on them.
        step: the scalars that all calls share.
        platform: what it is compiled for: "cuda", "rocm" or "tpu".
        interpret: run the kernel as plain JAX operations instead, on any platform.

    Returns:
        The leaves after the step.
    """
    block, all_scalars, how = block_of(form), scalars(work, step), work.each(decays)
    assert block is not None

    def on(i: int, leaf: Leaf) -> Leaf:
        view = view_of(jnp.shape(leaf.param), block, platform)
        own = all_scalars._replace(salts=all_scalars.salts[i], terms=all_scalars.terms[i])
        return _call(functools.partial(step_tile, work.rule, how[i]), view, leaf, own, platform, interpret)

    return tuple(on(i, leaf) for i, leaf in enumerate(work.leaves))


def _call(step: Callable[..., Leaf], view: View, whole: Leaf, scalars: Scalars, platform: str, interpret: bool) -> Leaf:
    leaf = jax.tree.map(_columns, whole, is_leaf=is_quantized)
    shapes, per_block = _each(leaf, view.shape, view.blocks), _each(leaf, False, True)
    arrays = [jnp.reshape(x, shape) for x, shape in zip(jax.tree.leaves(leaf), shapes, strict=True)]
    specs = _each(leaf, view.elements(), view.numbers())
    treedef, changed, first = jax.tree.structure(leaf), arrays[1:], len(scalars)

    def kernel(*refs: Any) -> None:
        tile = tuple(pl.program_id(axis) for axis in range(3))
        given = [[ref[i] for i in range(x.size)] for ref, x in zip(refs, scalars, strict=False)]
        before, after = refs[first : first + len(arrays)], refs[first + len(arrays) :]
        values = [view.read(ref, tile) if own else ref[...] for ref, own in zip(before, per_block, strict=True)]
        new = jax.tree.leaves(step(given, places(view, tile), treedef.unflatten(values)))
        for ref, x, own in zip(after, new, per_block[1:], strict=True):
            ref[...] = view.written(ref, x, tile) if own else x

    stepped = pl.pallas_call(
        kernel,
        out_shape=jax.eval_shape(lambda: changed),  # with the axes of shard_map over which they vary
        grid=view.grid,
        in_specs=[*(scalars_for(platform) for _ in scalars), *specs],
        out_specs=specs[1:],
        input_output_aliases={first + 1 + i: i for i in range(len(changed))},
        interpret=interpret,
        name="adamx_step",
        **options_for(platform, view),
    )(*scalars, *arrays)
    new = [jnp.reshape(x, jnp.shape(like)) for x, like in zip(stepped, arrays_of(leaf), strict=True)]
    after: Leaf = jax.tree.unflatten(jax.tree.structure(leaf._replace(gradient=None)), new)
    return jax.tree.map(_together, after, is_leaf=_is_in_blocks)


def _columns(stored: Any) -> Any:
    """A quantized moment with an array for each of its blocks' two numbers; everything else as it is."""
    return InBlocks(stored.codes, *blocks.columns(stored.scales)) if is_quantized(stored) else stored


def _together(stored: Any) -> Any:
    """The inverse."""
    return Quantized(stored.codes, blocks.together(*stored[1:])) if _is_in_blocks(stored) else stored


def _is_in_blocks(node: Any) -> bool:
    return isinstance(node, InBlocks)


def _each(leaf: Leaf, elements: T, numbers: T) -> list[T]:
    """One thing for each array of a leaf with a number an element, another for those with one a block."""
    kinds = [[elements, numbers, numbers] if _is_in_blocks(x) else [elements] for x in leaf if x is not None]
    return [kind for of in kinds for kind in of]
