"""Weight decay: of AdamW, between stage 2 and stage 3, and independent of the learning rate, behind stage 3."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamx import hyperparameters
from adamx.core.errors import check_empty, check_params, schedule_added, wrong_state
from adamx.core.leaf import Term, behind_direction
from adamx.core.rate import ScalarOrSchedule, check_schedule
from adamx.core.state import increment
from adamx.core.step import Update, Weights
from adamx.core.work import Tail
from adamx.hyperparameters import names_hints
from adamx.numerics import Scalar
from adamx.trees import Tree, check_fits, map_leaves
from adamx.variables import bare

Mask = Tree | Callable[[Tree], Tree]
"""Which leaves: a tree of booleans, a prefix of the parameters, or a function from them to one."""


INJECTED = (
    "optax.inject_hyperparams takes a function for a schedule and calls it with the step count: give it "
    'static_args="mask", or use adamx.inject_hyperparams'
)


class WeightDecaySchedule(NamedTuple):
    """State of a scheduled weight decay: the number of steps taken, an int32 scalar."""

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]


@names_hints
def add_decayed_weights(
    weight_decay: ScalarOrSchedule = 0.0, mask: Mask | None = None, *, cautious: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Adds the parameters times λ to the direction, `u_t + λ θ_{t-1}`.

    Loshchilov & Hutter (2019), arXiv 1711.05101, Algorithm 2, line 12, with λ multiplied by the learning rate that
    follows, as in optax and torch. Computed in float32 or wider; the dtype that came goes out.

    With `cautious=True` an element decays where `u_t θ_{t-1} >= 0`, so that the decay never opposes the direction: Chen
    et al., "Cautious Weight Decay" (2025), arXiv 2510.12402, Algorithm 1. For complex numbers it is the real part of
    the product of one and the conjugate of the other.

    Args:
        weight_decay: λ >= 0, per unit of learning rate, or a schedule of the step count.
        mask: which leaves decay: a tree of booleans, a prefix of the parameters, or a function from them to one. Under
            `optax.inject_hyperparams` a function needs `static_args="mask"`: it would be taken for a schedule.
        cautious: whether elements do not decay whose direction and parameter differ in sign.

    Returns:
        A transformation without state for a number; for a schedule it keeps a count. With a mask the state is wrapped
        in `optax.MaskedState`.

    Raises:
        ValueError: a negative, infinite or NaN λ; at init, a mask that is False while λ is an array; at update, no
            parameters.
        TypeError: λ neither number nor schedule.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.add_decayed_weights(0.5)
        >>> params = jnp.array([2.0])
        >>> tx.update(jnp.array([1.0]), tx.init(params), params)[0]
        Array([2.], dtype=float32)
    """
    return _decay(weight_decay, mask, cautious=cautious, subtracts=False)


@names_hints
def decay_weights(
    weight_decay: ScalarOrSchedule = 0.0, mask: Mask | None = None, *, cautious: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Subtracts the parameters times λ from the update, `u_t - λ θ_{t-1}`: put it after the learning rate.

    Loshchilov & Hutter (2019), arXiv 1711.05101, Algorithm 2, line 12, with the λ of the paper, which the learning rate
    does not multiply: each step takes the share λ of a parameter away. Their schedule multiplier η_t multiplies λ as
    well: with `relative_decay(λ, schedule, peak)` in the place of λ this is the `decouple_lr` of optimi and FlashOptim.
    Computed in float32 or wider; the dtype that came goes out.

    Args:
        weight_decay: λ >= 0, the share that a step takes away, or a schedule of the step count.
        mask: which leaves decay: a tree of booleans, a prefix of the parameters, or a function from them to one. Under
            `optax.inject_hyperparams` a function needs `static_args="mask"`: it would be taken for a schedule.
        cautious: whether elements do not decay that the update makes larger in size, see `add_decayed_weights`.

    Returns:
        A transformation without state for a number; for a schedule it keeps a count. With a mask the state is wrapped
        in `optax.MaskedState`.

    Raises:
        ValueError: a negative, infinite or NaN λ; at init, a mask that is False while λ is an array; at update, no
            parameters.
        TypeError: λ neither number nor schedule.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.chain(adamx.adam(0.5), adamx.decay_weights(0.25))
        >>> params = jnp.array([4.0])
        >>> adamx.step(tx, jnp.array([1.0]), tx.init(params), params)[0].round(3)  # 4 - 0.5 - 0.25 * 4
        Array([2.5], dtype=float32)
    """
    return _decay(weight_decay, mask, cautious=cautious, subtracts=True)


def _decay(
    weight_decay: ScalarOrSchedule, mask: Mask | None, *, cautious: bool, subtracts: bool
) -> optax.GradientTransformationExtraArgs:
    """A stage that adds λ θ, or takes it away."""
    cautious = hyperparameters.flag("cautious", cautious)
    names = [x for x in jax.tree.leaves(mask) if isinstance(x, str)]
    if names:
        raise TypeError(f"mask must have booleans, got {names[0]!r}: for a pattern, mask=adamx.match({names[0]!r})")
    decay = weight_decay if callable(weight_decay) else hyperparameters.nonnegative("weight_decay", weight_decay)

    def decayed_by(lam: Scalar) -> Callable[[jax.Array, jax.Array], tuple[jax.Array]]:
        def formula(u: jax.Array, p: jax.Array) -> tuple[jax.Array]:
            return (behind_direction(Term(lam, cautious=cautious), u, p).astype(jnp.result_type(u)),)

        return formula

    def init(params: optax.Params) -> optax.OptState:
        if not callable(decay):
            return optax.EmptyState()
        check_schedule("weight_decay", decay)
        return WeightDecaySchedule(jnp.zeros([], jnp.int32))

    def signed(lam: Scalar) -> Scalar:
        return -1 * lam if subtracts else lam

    def advance(state: Any) -> tuple[Scalar, optax.OptState]:
        """λ of this step with the sign of the stage, and the state after it."""
        if not callable(decay):
            return signed(decay), check_empty(state, "weight_decay")
        if not isinstance(getattr(state, "count", None), jax.Array | np.ndarray | np.generic):
            raise wrong_state("WeightDecaySchedule", state, schedule_added("weight_decay", state))
        count = jnp.asarray(state.count)
        lam = hyperparameters.scalar("the value of the weight_decay schedule", decay(count))
        return signed(lam), WeightDecaySchedule(increment(count))

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        check_params("weight decay", params)
        check_fits(params, updates, "parameter", "update")
        lam, state = advance(state)
        if isinstance(lam, float) and lam == 0.0:
            return updates, state
        return map_leaves(decayed_by(lam), 1, updates, params)[0], state

    def tail(state: Any, weights: Weights) -> tuple[Tail, optax.OptState]:
        inner = state if mask is None else _checked(state).inner_state
        lam, after = advance(inner)
        zero = isinstance(lam, float) and lam == 0.0
        terms = Term() if zero else Term(lam, cautious=cautious), Term()
        return Tail(terms, _which(mask, weights)), after if mask is None else optax.MaskedState(after)

    if mask is None:
        return optax.GradientTransformationExtraArgs(init, Update(update, tail=tail))
    plain = optax.GradientTransformationExtraArgs(init, update)
    masked = _masked(plain, mask, injected=isinstance(decay, jax.Array))
    return masked._replace(update=Update(masked.update, tail=tail))


def _which(mask: Mask | None, weights: Weights) -> tuple[int, ...]:
    """For each leaf of the parameters 0 if it decays, else 1."""
    params = weights.params
    if mask is None:
        return (0,) * len(jax.tree.leaves(params))
    answers = bare(mask(weights.wide()) if callable(mask) else mask)

    def everywhere(decays: Any, below: Tree) -> list[int]:
        return [0 if decays else 1] * len(jax.tree.leaves(below))

    return tuple(jax.tree.leaves(jax.tree.map(everywhere, answers, params)))


def _masked(
    tx: optax.GradientTransformationExtraArgs, mask: Mask, *, injected: bool
) -> optax.GradientTransformationExtraArgs:
    """`optax.masked`; a ValueError where a mask may have been called with the step count, in place of a tree."""
    masked = optax.masked(tx, mask)

    def init(params: optax.Params) -> optax.OptState:
        if isinstance(mask, jax.Array) or (injected and isinstance(mask, bool | np.bool_)):
            raise ValueError(f"mask={mask} is one answer for all leaves. {INJECTED}. Without mask all leaves decay")
        return masked.init(params)

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        return masked.update(updates, _checked(state), params, **extra_args)

    return optax.GradientTransformationExtraArgs(init, update)


def _checked(state: Any) -> optax.MaskedState:
    if not isinstance(state, optax.MaskedState):
        added = ": a mask was added since. To go on put optax.MaskedState(inner_state=s) in the place of this state s"
        raise wrong_state("optax.MaskedState", state, added)
    return state
