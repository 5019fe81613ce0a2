"""`step`: the optimizer's part of a training step, in one pass where there is one."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx.core.composition import check_params
from adamx.core.moments import check_rates
from adamx.core.state import check_state
from adamx.core.update import composed_step
from adamx.guard import Guarded
from adamx.kernels import native
from adamx.kernels.backend import ACCELERATORS, accelerator_kernel
from adamx.kernels.call import call_kernel, made_expensive
from adamx.kernels.choice import choose
from adamx.kernels.fused import Fused
from adamx.kernels.layout import Form, Kernel, Leaf, Rule, form_of
from adamx.kernels.on_shards import step_on_shards
from adamx.kernels.one_pass import one_pass
from adamx.kernels.recipe import Recipe
from adamx.kernels.tree import take_apart
from adamx.precision.master_weights import MasterWeightsState, check_masters
from adamx.precision.order import warn_of_what_follows
from adamx.precision.wrapping import Wrapping
from adamx.sharding.transform import Sharded
from adamx.storage.codec import shapes
from adamx.trees import Tree, check_fits
from adamx.variables import bare


def step(
    tx: optax.GradientTransformation,
    gradients: optax.Updates,
    state: optax.OptState,
    params: optax.Params,
    **extra: Any,
) -> tuple[optax.Params, optax.OptState]:
    """Takes an optimizer step: `update` and `optax.apply_updates`, for any transformation.

    For `fused_adam` and `fused_adamw`, alone or inside `with_master_weights` or `with_stochastic_rounding`, jitted code
    for a CPU makes one pass over memory: it reads gradient, parameter and moments of an element once and writes them
    once. Donate `params` and `state`, so that it writes in place, to a function that takes them in the order in which
    it returns them: XLA pairs donated arguments with results by shape, first with first, and copies where a parameter
    meets a moment. Float32 results are within 2 units in the last place of those of the composed stages; codes and
    their random bits are equal. An update is not rounded to the dtype of the gradients on its way to the parameters.
    Float32 leaves that XLA steps as fast are left to it: tiny ones among few. For a GPU or TPU it does the same with
    int8 and dithered moments, in leaves of 16,384 elements or more whose last axis is a multiple of their block, on a
    TPU of 128; XLA's own loop is as good for float32. Sharded arrays under plain `jit`, derivatives and vmap take the
    composed stages; inside `jax.shard_map` the kernel works on the shards.

    Args:
        tx: any transformation.
        gradients: a tree of the parameters' structure and shapes.
        state: what `tx.init(params)` or the last step returned.
        params: a tree of arrays.
        **extra: for `tx.update`.

    Returns:
        Parameters and state after the step, in the types that came.

    Raises:
        ValueError, TypeError: as `tx.update` does.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> params, tx = jnp.ones(2), optax.sgd(0.5)
        >>> adamx.step(tx, jnp.ones(2), tx.init(params), params)[0]
        Array([0.5, 0.5], dtype=float32)
    """
    about: Any = tx.update
    check_params("adamx.step", params)
    if isinstance(about, Guarded):

        def take(gradients: Tree, state: Any, params: Tree) -> tuple[Tree, optax.OptState]:
            return step(about.inner, gradients, state, params, **extra)

        return about.attempt(take, _same_params, gradients, state, params)
    if isinstance(about, Sharded):
        return step_on_shards(step, about, gradients, state, params, extra)
    wrapping = about if isinstance(about, Wrapping) else None
    fused = about if wrapping is None else wrapping.inner.update
    if not isinstance(fused, Fused) or fused.backend == "xla":
        warn_of_what_follows(state)
        return composed_step(tx, gradients, state, params, extra)
    recipe, offsets = fused.recipe, extra.get("dither_offset")
    moments = take_apart(state, wrapping, recipe.stages).moments
    _check(recipe, wrapping, gradients, check_state(type(moments), moments, gradients), params)
    if isinstance(state, MasterWeightsState):
        check_masters(params, state.remainder)
    flat, treedef = jax.tree.flatten(bare((recipe.arrays(), offsets, gradients, params, state)))

    def fast(kernel: Kernel, *arrays: jax.Array) -> list[jax.Array]:
        numbers, offsets, gradients, params, state = treedef.unflatten(arrays)
        return jax.tree.leaves(one_pass(kernel, recipe.replace(**numbers), wrapping, gradients, params, state, offsets))

    def plain(*arrays: jax.Array) -> list[jax.Array]:
        numbers, offsets, gradients, params, state = treedef.unflatten(arrays)
        again = recipe.replace(**numbers).build()
        wrapped = again if wrapping is None else wrapping.around(again)
        given = {} if offsets is None else {"dither_offset": offsets}
        return jax.tree.leaves(composed_step(wrapped, gradients, state, params, given))

    changed = jax.tree.structure((params, state))
    like = range(len(flat) - changed.num_leaves, len(flat))
    on_cpu = functools.partial(fast, NATIVE) if native.backend().name == "native" else plain

    def on_accelerator(platform: str, *arrays: jax.Array) -> list[jax.Array]:
        kernel, _ = accelerator_kernel(platform)
        return plain(*arrays) if kernel is None else fast(kernel, *arrays)

    others = {platform: functools.partial(on_accelerator, platform) for platform in ACCELERATORS}
    return changed.unflatten(choose(on_cpu, plain, like, *map(jnp.asarray, flat), others=others))


def _check(recipe: Recipe, wrapping: Wrapping | None, gradients: Any, moments: Any, params: Any) -> None:
    """Raises what the composed stages raise, in their order and in their words."""
    if wrapping is not None:
        check_fits(gradients, params)
    check_fits(gradients, shapes(moments.mu), of_state=True)
    if not recipe.precise:
        check_rates(recipe.b1, recipe.b2, moments.mu)
    check_fits(params, gradients, "parameter", "update")


def _call_native(
    form: Form, leaves: list[Leaf], numbers: jax.Array, counts: jax.Array, salts: jax.Array, rule: Rule
) -> list[Leaf]:
    precise1, precise2 = (rule.precise and float(b) >= 0.5 for b in (rule.b1, rule.b2))
    of_averages = {"precise1": precise1, "precise2": precise2}
    counts = counts if rule.waits else made_expensive(counts, numbers)
    return call_kernel(form, leaves, numbers, counts, salts, nesterov=rule.nesterov, alone=rule.alone, **of_averages)


NATIVE = Kernel(form_of, _call_native)


def _same_params(shapes: Tree, params: Tree) -> Tree:
    return params
