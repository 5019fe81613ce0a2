"""The Pallas kernel on one leaf: which leaves it takes, and the call."""

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from adamx.core.averages import Averages, of_squares
from adamx.core.leaf import MASTER, PLAIN, Leaf, Numbers, Rule, Term
from adamx.core.message import Moments
from adamx.core.work import Tail, Work, decays
from adamx.kernels.layout import DITHERED, FLOAT32, INT4, INT8, NARROW, Form, Kernel, form_of
from adamx.kernels.operands import OfStep, Scalars, of_step, scalars
from adamx.kernels.pallas.compilers import PLATFORMS, SINCE, options_for, scalars_for
from adamx.kernels.pallas.tile import step_tile
from adamx.kernels.pallas.view import GPUS, LANES, SUBLANES, View, places, view_of
from adamx.storage import Float, Int8
from adamx.storage.codec import Codec, Quantized, is_quantized
from adamx.storage.on_blocks import InBlocks

SMALL = 1 << 14
"""Leaves with fewer elements cost what it takes to start a kernel."""


def pallas_kernel(platform: str, *, interpret: bool = False) -> Kernel:
    """The kernel for a platform, "cuda", "rocm" or "tpu"; interpreted as plain JAX operations it runs on any."""

    def takes(leaf: Leaf, rule: Rule) -> Form | None:
        form = pallas_form(leaf, rule, platform)
        return form if form is None or interpret or not problem(form, platform) else None

    return Kernel(takes, functools.partial(call_pallas, platform=platform, interpret=interpret))


def pallas_form(leaf: Leaf, rule: Rule, platform: str) -> Form | None:
    """The form of a leaf, or None where XLA must take it, or does as well: moments in float32 are one loop there.

    A tile does not know the norms of its leaf: XLA takes all leaves of a step that is asked for them.
    """
    form, shape = form_of(leaf, rule), jnp.shape(leaf.param)
    if form is None or form.weights == NARROW or INT4 in (form.mu[0], form.nu[0]):
        return None
    if leaf.norms is not None or "float16" in form.dtypes or math.prod(shape) < max(SMALL, 1):
        return None
    block = block_of(form)
    gains = {INT8, DITHERED} & {form.mu[0], form.nu[0]}
    if not gains or block is None or shape[-1:] == () or shape[-1] % block:
        return None
    return form if platform in GPUS or _in_vectors(shape, block) else None


def _in_vectors(shape: Sequence[int], block: int) -> bool:
    """Whether the vectors of a TPU hold whole blocks of a leaf, and most of each is filled."""
    if len(shape) == 1:
        return block % LANES == 0 and shape[0] % (SUBLANES * LANES) == 0
    return block % LANES == 0 and 2 * shape[-2] >= SUBLANES


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

    def elements(dtype: Any, shape: tuple[int, ...] = (SUBLANES, block)) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    def codec(kind: int) -> Codec:
        return Int8(block) if kind == INT8 else Float(None if kind == FLOAT32 else "bfloat16", kind == DITHERED)

    def stored(kind: int, codes: Any) -> Any:
        if kind == INT8:
            return Quantized(elements(codes), elements(jnp.float32, (SUBLANES, 1, 2)))
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
    flat, treedef = jax.tree.flatten(whole)
    of_blocks = jax.tree.leaves(jax.tree.map(_of_blocks, whole, is_leaf=is_quantized))
    arrays = [view.seen(x, scales=own) for x, own in zip(flat, of_blocks, strict=True)]
    specs = [view.numbers() if own else view.elements() for own in of_blocks]
    changed, first = arrays[1:], len(scalars)

    def kernel(*refs: Any) -> None:
        at = tuple(pl.program_id(axis) for axis in range(3))
        given = [[ref[i] for i in range(x.size)] for ref, x in zip(refs, scalars, strict=False)]
        before, after = refs[first : first + len(arrays)], refs[first + len(arrays) :]

        def read(stored: Any) -> Any:
            if is_quantized(stored):
                return InBlocks(view.read(stored.codes), *[view.column(stored.scales, i, at) for i in (0, 1)])
            return view.read(stored)

        def write(stored: Any, x: Any) -> None:
            if is_quantized(stored):
                view.write(stored.codes, x.codes)
                view.put(stored.scales, 0, x.scale, at)
                view.put(stored.scales, 1, x.top, at)
            else:
                view.write(stored, x)

        tile = jax.tree.map(read, treedef.unflatten(before), is_leaf=is_quantized)
        new = step(given, places(view, at), tile)
        jax.tree.map(write, treedef.unflatten((None, *after))._replace(gradient=None), new, is_leaf=is_quantized)

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
    new = [view.back(x, like, scales=own) for x, like, own in zip(stepped, flat[1:], of_blocks[1:], strict=True)]
    after: Leaf = treedef.unflatten((None, *new))
    return after._replace(gradient=None)


def _of_blocks(stored: Any) -> Any:
    """Whether each array has numbers of blocks, rather than one an element."""
    return Quantized._make((False, True)) if is_quantized(stored) else False
