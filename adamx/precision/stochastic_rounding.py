"""Half-precision parameters, rounded up or down by dither."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamx import hyperparameters
from adamx.core.errors import check_params, transformation, wrong_state
from adamx.core.leaf import STOCHASTIC, land, to_float32
from adamx.core.step import Weights, tree_to_float32
from adamx.precision.half import start_in_float32, with_step
from adamx.storage.codec import is_half
from adamx.storage.dither import Walk
from adamx.storage.split import bits_of
from adamx.trees import Tree, check_fits, map_leaves


class StochasticRoundingState(NamedTuple):
    """The state of `with_stochastic_rounding`.

    Attributes:
        inner: the state of the wrapped transformation.
        step: a uint32 scalar that counts and wraps.
    """

    inner: optax.OptState
    step: jax.Array


def _round(p: Any, u: Any, walk: Walk) -> tuple[Any]:
    """The update that takes a half-precision parameter to a neighbour of where `u` would."""
    p = jnp.asarray(p)
    if not is_half(p.dtype):
        return (u,)
    start = to_float32(p)
    target, _ = land(STOCHASTIC, p, None, start, u, walk)
    moved = to_float32(target) - start
    return (jnp.where(bits_of(target) == bits_of(p), 0, moved) if p.dtype == jnp.bfloat16 else moved,)


def with_stochastic_rounding(tx: optax.GradientTransformation, seed: int = 0) -> optax.GradientTransformationExtraArgs:
    """Trains half-precision parameters without more state: rounds each new parameter up or down by dither.

    The float32 result is rounded to one of its two half-precision neighbours: up if its fraction exceeds a threshold,
    which walks through [0, 1) from step to step (`adamx.storage.dither`). Rounding errors cancel over time: a constant
    drift is followed to a few units in the last place, however small. Float32 leaves are left alone.

    Args:
        tx: any transformation; it sees float32 gradients and parameters.
        seed: tells the thresholds of one run from those of another.

    Returns:
        A transformation whose update needs the parameters and is float32, and whose state is `StochasticRoundingState`.
        Inside `shard_map` it takes the extra argument `dither_offset`, as `scale_by_moments` does.

    Raises:
        ValueError: at update, no parameters, or trees that do not fit.
        TypeError: a seed that is not an integer; leaves that are not floating arrays; a state that is not this one's.

    Example:
        >>> import jax, jax.numpy as jnp, optax, adamx
        >>> tx, params = adamx.with_stochastic_rounding(optax.sgd(1e-4)), jnp.ones(1000, jnp.bfloat16)
        >>> state = tx.init(params)
        >>> for _ in range(100):
        ...     updates, state = jax.jit(tx.update)(jnp.ones(1000, jnp.bfloat16), state, params)
        ...     params = optax.apply_updates(params, updates)
        >>> round(float(params.astype(jnp.float32).mean()), 3)
        0.99
    """
    inner = transformation(tx)
    seed = hyperparameters.integer("seed", seed, 0)

    def init(params: optax.Params) -> StochasticRoundingState:
        return StochasticRoundingState(inner.init(start_in_float32(params)), jnp.zeros([], jnp.uint32))

    def checked(gradients: Tree, state: Any, params: Tree) -> Weights:
        if not isinstance(state, StochasticRoundingState):
            raise wrong_state("StochasticRoundingState", state)
        check_fits(gradients, params)
        return Weights(params, count=state.step + 1, behind=STOCHASTIC, seed=seed)

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, StochasticRoundingState]:
        given = checked(updates, state, check_params("with_stochastic_rounding", params))
        steps, after = inner.update(tree_to_float32(updates), state.inner, given.wide(), **extra_args)
        places = given.walks(extra_args.get("dither_offset"))
        return map_leaves(_round, 1, given.params, steps, places)[0], StochasticRoundingState(after, given.count)

    def kept(after: optax.OptState, moved: Weights) -> StochasticRoundingState:
        return StochasticRoundingState(after, moved.count)

    return with_step(init, update, inner, checked, kept)
