"""`step`: the optimizer's part of a training step, in one pass where there is one."""

import warnings
from typing import Any

import jax
import optax

from adamx.core.errors import check_params
from adamx.core.hidden import HIDES
from adamx.core.step import Pass, Weights, about, take_step
from adamx.core.work import by_xla
from adamx.kernels.execute import by_kernels
from adamx.precision.order import warn_of_what_follows
from adamx.variables import bare

BACKENDS = {"auto": by_kernels, "xla": by_xla}


def step(
    tx: optax.GradientTransformation,
    gradients: optax.Updates,
    state: optax.OptState,
    params: optax.Params,
    *,
    backend: str = "auto",
    **extra: Any,
) -> tuple[optax.Params, optax.OptState]:
    """Takes an optimizer step: `update` and `optax.apply_updates`, for any transformation.

    `adam`, `adamw`, `nadam` and `nadamw`, alone, in `adamx.chain` or in a wrapper of adamx, make one pass over memory:
    jitted code for a CPU reads gradient, parameter and moments of an element once and writes them once.
    `adamx.explain(tx, params)` tells for each leaf. To write in place, donate `params` and `state` to a function that
    takes them in the order in which it returns them: XLA pairs donated arguments with results by shape, first with
    first, and copies if a parameter is paired with a moment. Float32 parameters differ from those of `update` and
    `apply_updates` by rounding, by at most 5 units in the last place of the larger of parameter and learning rate;
    quantized moments are equal, and master weights of 24 bits are equal or neighbours. An update is not rounded to the
    dtype of the gradients before it is added.

    Small float32 leaves are left to XLA, which is as fast there. GPUs and TPUs have a kernel for int8 and dithered
    moments, in leaves of 16,384 elements or more whose last axis is a multiple of their block; XLA's own loop is as
    good for float32. `Int4` moments and master weights of 24 bits have a kernel on CPUs only. On a TPU the block must
    be a multiple of 128, the axis before the last one have 4 elements or more, and a leaf of one axis be a multiple of
    1,024. Each device steps its shards of sharded arrays: inside `jax.shard_map`, in `shard_state`, and on CPUs and
    GPUs under plain `jit` from jax 0.7 on. Derivatives, vmap and `jax.export` use XLA's code.

    Args:
        tx: any transformation.
        gradients: a tree of the parameters' structure and shapes.
        state: what `tx.init(params)` or the last step returned.
        params: a tree of arrays.
        backend: "auto": a kernel where it takes a leaf, else XLA; "xla": XLA everywhere.
        **extra: for `tx.update`.

    Returns:
        Parameters and state after the step, in the types that came.

    Raises:
        ValueError, TypeError: as `tx.update` does; a backend of another name.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> params, tx = jnp.ones(2), optax.sgd(0.5)
        >>> adamx.step(tx, jnp.ones(2), tx.init(params), params)[0]
        Array([0.5, 0.5], dtype=float32)
    """
    check_params("adamx.step", params)
    if backend not in BACKENDS:
        raise ValueError(f'backend must be "auto" or "xla", got {backend!r}')
    told = Pass(BACKENDS[backend], extra)
    says = about(tx)
    if says.why:
        warn_of_what_follows(state)
    if HIDES in says.why:
        message = f"the optimizer takes two passes: {says.why}. adamx.explain(tx, params) tells more"
        warnings.warn(message, stacklevel=2)
    if says.step is None:
        weights, state = take_step(tx, gradients, state, Weights(params), told)
        return weights.params, state
    changed = jax.tree.structure((params, state))
    weights, after = take_step(tx, bare(gradients), bare(state), Weights(bare(params)), told)
    return changed.unflatten(jax.tree.leaves((weights.params, after)))
