"""An exponential moving average of the parameters, kept beside the state of the optimizer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from adamx import hyperparameters, numerics
from adamx.core.average import of_parameters
from adamx.core.branch import branch
from adamx.core.errors import check_params, transformation, wrong_state
from adamx.core.leaf import PLAIN, to_float32
from adamx.core.rate import check_schedule
from adamx.core.state import increment
from adamx.core.step import Pass, Update, Weights, about, landed, take_step
from adamx.core.work import by_xla
from adamx.numerics import Scalar
from adamx.precision.master_params import weights_behind
from adamx.storage.choice import decode
from adamx.storage.codec import Stored, is_quantized, shapes
from adamx.storage.dither import Walk
from adamx.trees import Tree, check_fits, map_leaves, map_paths, named_leaves, path_name
from adamx.variables import bare


class EmaState(NamedTuple):
    """The state of `with_ema`.

    Attributes:
        inner: the state of the wrapped transformation.
        ema: the average before its correction, a tree of the parameters' structure and shapes.
        count: the number of steps taken, an int32 scalar that saturates at 2^31-1.
        weight: the sum of the weights of the parameters in `ema`, by which it is divided, a floating scalar.
    """

    inner: optax.OptState
    ema: Tree
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    weight: jax.Array


def with_ema(
    tx: optax.GradientTransformation,
    decay: Scalar | Callable[[jax.Array], Any],
    every: int = 1,
    *,
    start: int = 0,
    dtype: DTypeLike | None = None,
    debias: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Keeps an average of the parameters in the state; `ema_params` reads it.

    `e_k = d e_{k-1} + (1-d) θ_k` from `e_0 = 0`, with θ_k the parameters after the step. `ema_params` gives
    `e_k / (1-d^k)`, a mean of the parameters whose weights sum to 1. Training does not change.

    Polyak & Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992), average all θ alike; Kingma & Ba
    (2015), arXiv 1412.6980, section 7.2, exponentially, with this correction. A schedule `lambda k: k / (k + 1)` is the
    plain mean of all parameters, with `start=s` of those after step s.

    Put `accumulate` around it: inside, every microbatch counts as a step.

    The average is float32, or float64 for float64 parameters. Behind half-precision parameters it is that of the
    float32 weights of `with_master_weights`, which may be inside `tx` or around this wrapper. Put `with_ema` around
    all that changes updates, so around a whole chain, and `skip_nonfinite` and `shard_state` around it.

    Args:
        tx: any transformation.
        decay: d in [0, 1), how much of the average is kept when one is taken; or a schedule from the number of
            averages taken before, an int32 scalar, to d.
        every: an average is taken once in so many steps. Its horizon is about `every / (1 - decay)` steps.
        start: the number of steps before which no average is taken.
        dtype: the floating dtype that stores the average, or a codec of `adamx.storage`; None: float32. Half precision
            and codes are dithered, so that the average does not stall.
        debias: False: the average starts at the first parameters that it takes, instead of at 0 with a correction. They
            then keep the weight `d^(k-1)`.

    Returns:
        A transformation whose update needs the parameters, and whose state is `adamx.ema.EmaState`. Inside `shard_map`
        a stored average that is dithered needs `dither_offset`, as in `scale_by_moments`.

    Raises:
        ValueError: decay out of range, every below 1, start below 0, a dtype that rounds to nearest; at update, no
            parameters, or of another structure or shape than at init; in a step, stages of adamx
            behind it in a chain.
        TypeError: arguments of another type; at init, a schedule that does not give a number; a state that is not this
            transformation's.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> tx, params = adamx.with_ema(optax.sgd(1.0), 0.5), jnp.zeros(1)
        >>> state = tx.init(params)
        >>> for _ in range(2):
        ...     params, state = adamx.step(tx, jnp.array([-3.0]), state, params)
        >>> params, adamx.ema_params(state, params)  # (0.25 * 3 + 0.5 * 6) / 0.75
        (Array([6.], dtype=float32), Array([5.], dtype=float32))
    """
    every, start = hyperparameters.integer("every", every, 1), hyperparameters.integer("start", start, 0)
    debias = hyperparameters.flag("debias", debias)
    rate = decay if callable(decay) else hyperparameters.decay_rate("decay", decay)
    average = of_parameters(rate if isinstance(rate, float) else None, dtype)
    inner = transformation(tx)

    def init(params: optax.Params) -> EmaState:
        if callable(rate):
            check_schedule("decay", rate)
        return EmaState(tx.init(params), average.zeros(params), jnp.zeros([], jnp.int32), jnp.zeros([], float))

    def averaged(ema: Tree, weight: jax.Array, k: jax.Array, weights: Tree, offsets: Any) -> tuple[Tree, jax.Array]:
        """The k-th average, and the sum of its weights."""
        d = hyperparameters.scalar("the value of the decay schedule", rate(k - 1)) if callable(rate) else rate
        first = None if debias else k == 1

        def leaf(x: Any, kept: Stored, walk: Walk | None = None) -> tuple[Stored]:
            if not jnp.issubdtype(jnp.result_type(x), jnp.inexact):
                return (kept,)  # an integer that the transformation leaves out
            return (average.step(d, to_float32(x), kept, None, walk, first)[1],)

        return map_leaves(leaf, 1, weights, ema, *average.walks(weights, k, offsets))[0], _weight(d, k, weight, first)

    def advance(before: EmaState, after: Any, moved: Weights, offsets: Any) -> EmaState:
        count = increment(jnp.asarray(before.count))
        given = bare(before.ema), before.weight

        def taken() -> tuple[Tree, jax.Array]:
            weights = weights_behind(after, moved.params) if moved.behind == PLAIN else moved.wide()
            return averaged(*given, (count - start) // every, bare(weights), offsets)

        due = (count > start) & ((count - start) % every == 0)
        ema, weight = taken() if every == 1 and start == 0 else branch(due, taken, lambda _: given)
        return EmaState(after, jax.tree.unflatten(jax.tree.structure(before.ema), jax.tree.leaves(ema)), count, weight)

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, EmaState]:
        before = _checked(state, check_params("with_ema", params))
        updates, after = inner.update(updates, before.inner, params, **extra_args)
        moved = landed(Weights(params), updates, Pass(by_xla))
        return updates, advance(before, after, moved, extra_args.get("dither_offset"))

    def step(gradients: Tree, state: Any, weights: Weights, told: Pass) -> tuple[Weights, EmaState]:
        before = _checked(state, weights.params)
        if told.tails:
            raise ValueError(
                "with_ema averages the parameters after a step, but stages of a chain stand behind "
                "it: put it around the whole chain, adamx.with_ema(adamx.chain(...), decay)"
            )
        moved, after = take_step(inner, gradients, before.inner, weights, told)
        return moved, advance(before, after, moved, told.extra.get("dither_offset"))

    return optax.GradientTransformationExtraArgs(init, Update(update, step, why=about(inner).why))


def _weight(d: Scalar, k: jax.Array, before: jax.Array, first: Any) -> jax.Array:
    """The sum of the weights after k averages: `1 - d^k`, or 1 minus the product of what a schedule gave."""
    if first is not None:
        return jnp.ones_like(before)
    if isinstance(d, float):
        return numerics.ema_weight(d, k, precise=True).astype(before.dtype)
    d = numerics.as_scalar(d, before.dtype)
    return numerics.ema(d, before, jnp.ones_like(before), precise=True)


def _checked(state: Any, params: Tree) -> EmaState:
    """The state itself, or an error that says what of it or of the parameters does not fit."""
    if not isinstance(state, EmaState):
        raise wrong_state("EmaState", state)
    kept, came = shapes(bare(state.ema)), bare(params)
    if _outline(kept) != _outline(came):
        check_fits(came, kept, "parameter", "average")
    return state


def _outline(tree: Tree) -> tuple[Any, list[tuple[int, ...]]]:
    return jax.tree.structure(tree), [jnp.shape(x) for x in jax.tree.leaves(tree)]


def ema_params(state: Any, params: optax.Params, dtype: DTypeLike | None = None) -> optax.Params:
    """The average of the parameters that `with_ema` keeps, corrected for its start.

    `e_k / (1-d^k)`. Before the first average is taken it is the parameters themselves.

    Args:
        state: of `with_ema`, or any state that contains such, one for each group of `optax.partition` say.
        params: the parameters that belong to it. A leaf that no `EmaState` averages stays as it is.
        dtype: the floating dtype of the result; None: that of each parameter. The average behind half-precision
            parameters is kept more finely: float32 reads it.

    Returns:
        A tree like the parameters.

    Raises:
        TypeError: a state with no `EmaState` in it, or with two that average one leaf; a dtype that is no floating one.
        ValueError: an average of a leaf that params does not have.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> params = {"w": jnp.ones(2)}
        >>> state = adamx.with_ema(adamx.adam(0.1), 0.999).init(params)
        >>> adamx.ema_params(state, params)
        {'w': Array([1., 1.], dtype=float32)}
    """
    target = hyperparameters.floating_dtype("dtype", dtype)
    kept = _averages(state)
    unknown = sorted(kept.keys() - named_leaves(params).keys())
    if unknown:
        raise ValueError(f"the state has an average of {unknown[0]}, which is no leaf of params")

    def mean(path: Any, p: Any) -> tuple[jax.Array]:
        p, name = jnp.asarray(p), path_name(path)
        own = p.dtype if target is None else target
        own = numerics.compute_dtype(own, jnp.complex64) if jnp.iscomplexobj(p) else own
        if not jnp.issubdtype(p.dtype, jnp.inexact):
            return (p,)
        if name not in kept:
            return (p.astype(own),)
        a = decode(name, kept[name][0])
        weight = kept[name][1].astype(numerics.real_dtype(a.dtype))
        corrected = numerics.divide(a, jnp.where(weight > 0, weight, 1)).astype(own)
        return (jnp.where(weight > 0, corrected, p.astype(own)),)

    return map_paths(mean, 1, params)[0]


def _averages(state: Any) -> dict[str, tuple[Stored, jax.Array]]:
    """The average of each leaf as it is stored, and its weight, by the path of the leaf."""

    def is_ema(node: Any) -> bool:
        return isinstance(node, EmaState)

    found = [node for node in jax.tree.leaves(bare(state), is_leaf=is_ema) if is_ema(node)]
    if not found:
        raise TypeError(f"expected a state with an EmaState in it, got {type(state).__name__}: wrap tx in with_ema")
    kept: dict[str, tuple[Stored, jax.Array]] = {}
    for node in found:
        for name, stored in named_leaves(node.ema, is_quantized).items():
            if name in kept:
                raise TypeError(f"the state has two EmaState with an average of {name}: pass one of them")
            kept[name] = stored, jnp.asarray(node.weight)
    return kept
