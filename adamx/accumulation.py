"""Gradients of several microbatches, averaged before a step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from adamx import hyperparameters, numerics
from adamx.core.branch import branch, no_step, no_updates
from adamx.core.errors import transformation, wrong_state
from adamx.core.leaf import scaled
from adamx.core.rate import check_schedule
from adamx.core.state import increment
from adamx.core.step import Pass, Update, Weights, about, take_step
from adamx.hyperparameters import names_hints
from adamx.numerics import Scalar
from adamx.storage.choice import moment_codec
from adamx.storage.codec import Codec, Stored, check_fits_moment, first_moments, is_quantized, precision
from adamx.storage.dither import GRADIENT, Walk, walks
from adamx.trees import Tree, check_leaves, map_leaves

Every = int | Callable[[jax.Array], Any]
"""How many microbatches a step takes, or a schedule from the number of steps taken to that."""

SLOW = 1 - 2.0**-12
"""Half precision is dithered: rounded to nearest a sum of thousands of gradients would stand still."""


class AccumulateState(NamedTuple):
    """The state of `accumulate`, with the field names of `optax.MultiStepsState`.

    Attributes:
        mini_step: how many microbatches are in the sum, an int32 scalar; 0 behind a step.
        gradient_step: how many steps were taken, an int32 scalar.
        inner_opt_state: the state of the transformation that takes the mean.
        acc_grads: the sum of the gradients so far, a tree of the parameters' structure and shapes. Behind a step it
            holds the mean that was taken, until the next microbatch takes its place.
    """

    mini_step: jax.Array
    gradient_step: jax.Array
    inner_opt_state: optax.OptState
    acc_grads: optax.Updates


class _Sum(NamedTuple):
    """How gradients are summed."""

    codec: Codec
    every: Every

    def add(
        self, gradients: Tree, state: Any, factor: Scalar | None, offsets: Any
    ) -> tuple[jax.Array, AccumulateState]:
        """Whether the step is taken with this microbatch, and the state with its gradients in it."""
        if not isinstance(state, AccumulateState):
            raise wrong_state("AccumulateState", state)
        check_leaves("gradient", gradients)
        check_fits_moment(gradients, state.acc_grads)
        so_far, taken = jnp.asarray(state.mini_step), jnp.asarray(state.gradient_step)
        k = jnp.asarray(_number(self.every, taken)).astype(so_far.dtype)
        last = so_far + 1 >= k
        divisor = jnp.where(last, so_far + 1, 1)

        def leaf(g: jax.Array, kept: Stored, walk: Walk | None = None) -> tuple[Stored]:
            kept = jax.tree.map(jnp.asarray, kept)
            wide = numerics.compute_dtype(jnp.result_type(g), precision(kept))
            g = numerics.to_dtype(g if factor is None else scaled(factor, g), wide)
            total = jnp.where(so_far == 0, g, self.codec.decode(kept, wide) + g)
            mean = numerics.divide(total, divisor.astype(numerics.real_dtype(wide)))
            return (self.codec.encode(mean, kept, None if walk is None else walk.thresholds(g.shape), square=False),)

        columns = [state.acc_grads]
        if self.codec.dithered:
            clock = taken.astype(jnp.uint32) * k.astype(jnp.uint32) + so_far.astype(jnp.uint32)
            columns.append(walks(gradients, clock, GRADIENT, (self.codec.seed,), offsets))
        (kept,) = map_leaves(leaf, 1, gradients, *columns)
        after = jnp.where(last, 0, so_far + 1)
        return last, AccumulateState(after, jnp.where(last, increment(taken), taken), state.inner_opt_state, kept)


@names_hints
def accumulate(
    tx: optax.GradientTransformation, every: Every, dtype: DTypeLike | None = None
) -> optax.GradientTransformationExtraArgs:
    """Steps `tx` once per `every` microbatches, with the mean of their gradients; other calls only add to the sum.

    `a_i = a_{i-1} + g_i` from `a_0 = 0`, and `tx` gets `a_k / k`.

    The sums are float32 whatever the gradients are. In float32 the step is bitwise identical to one with the mean of
    the gradients, summed in this order (with jax 0.6 within a few units in the last place). Through `adamx.step` a
    microbatch reads its gradient once, and reads and writes the sum once; parameters and moments are read and written
    only in the last one, in the one pass of `tx`, and nothing is copied. A clip inside,
    `accumulate(chain(clip_by_global_norm(1.0), adamw(...)), 8)`, is of the mean; one outside is of each microbatch.

    Args:
        tx: any transformation.
        every: k, how many microbatches a step takes, at least 1; or a schedule from the number of steps taken so far,
            an int32 scalar, to k.
        dtype: the dtype that stores the sum, or a codec of `adamx.storage`; None: float32, float64 for 64-bit
            parameters. Half precision is dithered, so that sums do not stall.

    Returns:
        A transformation whose state is `AccumulateState`, with the state of `tx` in `inner_opt_state`. Where no step is
        taken its updates are 0. `state.mini_step == 0` says that the last call took a step.

    Raises:
        ValueError: every below 1; at update, gradients that do not fit.
        TypeError: every neither an integer nor a schedule; leaves that are not floating arrays; another state.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx, params = adamx.accumulate(adamx.adam(0.1), every=2), jnp.ones(1)
        >>> state = tx.init(params)
        >>> for g in (1.0, 3.0):
        ...     params, state = adamx.step(tx, jnp.array([g]), state, params)
        ...     print(round(float(params[0]), 3), int(state.gradient_step))
        1.0 0
        0.9 1
    """
    if not callable(every):
        every = hyperparameters.integer("every", every, 1)
    inner, codec = transformation(tx), moment_codec("dtype", dtype, SLOW)
    total = _Sum(codec, every)

    def init(params: optax.Params) -> AccumulateState:
        if callable(every):
            check_schedule("every", every)
        mini_step, gradient_step = (jnp.zeros([], jnp.int32) for _ in range(2))
        return AccumulateState(mini_step, gradient_step, tx.init(params), *first_moments(params, (codec, False)))

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, AccumulateState]:
        last, added = total.add(updates, state, None, extra_args.get("dither_offset"))
        mean = _decoded(codec, updates, added.acc_grads)

        def taken() -> tuple[Tree, Any]:
            return inner.update(mean, state.inner_opt_state, params, **extra_args)

        moved, after = branch(last, taken, lambda shapes: (no_updates(shapes[0]), state.inner_opt_state))
        return moved, added._replace(inner_opt_state=after)

    def step(gradients: Tree, state: Any, weights: Weights, told: Pass) -> tuple[Weights, AccumulateState]:
        last, added = total.add(gradients, state, told.factor, told.extra.get("dither_offset"))
        in_codes = any(map(is_quantized, jax.tree.leaves(added.acc_grads, is_leaf=is_quantized)))
        mean = _decoded(codec, gradients, added.acc_grads) if in_codes else added.acc_grads  # as it lies in memory

        def taken() -> tuple[Weights, Any]:
            return take_step(inner, mean, state.inner_opt_state, weights, told.replace(factor=None))

        moved, after = branch(last, taken, lambda _: (no_step(weights, told), state.inner_opt_state))
        return moved, added._replace(inner_opt_state=after)

    return optax.GradientTransformationExtraArgs(init, Update(update, step, why=about(inner).why))


def _number(every: Every, taken: jax.Array) -> Any:
    """How many microbatches the next step takes."""
    return hyperparameters.scalar("the value of the every schedule", every(taken)) if callable(every) else every


def _decoded(codec: Codec, gradients: Tree, kept: Tree) -> Tree:
    """The mean in float32 or wider."""

    def leaf(g: jax.Array, stored: Stored) -> tuple[jax.Array]:
        return (codec.decode(stored, numerics.compute_dtype(jnp.result_type(g), precision(stored))),)

    return map_leaves(leaf, 1, gradients, kept)[0]
