"""MARS, Yuan et al. (2024): the gradient corrected by how much it has changed since the step before."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from adamx import hyperparameters, numerics, shards
from adamx.core.chain import chain
from adamx.core.decay import Mask
from adamx.core.errors import wrong_state
from adamx.core.rate import ScalarOrSchedule
from adamx.core.stages import update_dtype
from adamx.core.state import increment
from adamx.core.step import Update, about
from adamx.hyperparameters import names_hints
from adamx.numerics import Scalar
from adamx.optimizers.adamw import adamw
from adamx.trees import check_fits, first_state, leaf_dtype, map_leaves

NOT_TOLD = (
    "max_norm clips by the norm of a whole leaf, and shard_map(..., check_vma=False) and jax.pmap do not tell whether "
    "a leaf is split over devices: leave check_vma=True, or pass max_norm=None"
)


class PreviousGradientState(NamedTuple):
    """The state of `reduce_variance`.

    Attributes:
        count: the number of steps taken, an int32 scalar that saturates.
        gradient: the last gradient, a tree of the parameters' structure and shapes, in float32 or wider.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    gradient: optax.Updates


def corrected(g: jax.Array, previous: jax.Array, factor: Scalar) -> jax.Array:
    """`g + k (g - g')`, held within the limit of m, twice the root of the largest v: the change may overflow.

    An infinite g becomes NaN, by `g - g`: it must show.
    """
    return numerics.clamp_first_moment(g + factor * (g - previous)) - (g - g)


def clip_by_norm(c: jax.Array, limit: Scalar, axes: shards.Axes = ()) -> jax.Array:
    """`c limit / ‖c‖` where the Euclidean norm of the array exceeds the limit, else c.

    The squares are those of c divided by its largest element, where that is above 1: they do not overflow. c is held as
    m is: the compiler divides by a scalar with its reciprocal, which at the largest numbers is 0.
    """
    c = numerics.bound_first_moment(c, float(jnp.finfo(c.dtype).max))
    largest = jnp.maximum(shards.largest(jnp.max(jnp.abs(c), initial=0), axes), 1)
    scaled = numerics.divide(c, largest)
    norm = numerics.root(shards.total(jnp.sum(numerics.square(scaled)), axes))
    shrink = limit / jnp.where(norm == 0, jnp.ones_like(norm), norm)
    return jnp.where(norm * largest > limit, scaled * shrink, c)


@names_hints
def reduce_variance(
    b1: Scalar = 0.95, gamma: Scalar = 0.025, max_norm: Scalar | None = 1.0
) -> optax.GradientTransformationExtraArgs:
    """Adds a multiple of the change of the gradient since the last step, and clips, before stage 1.

    `c_t = g_t + γ β1/(1-β1) (g_t - g_{t-1})`, then `c_t / ‖c_t‖` in a leaf in which the norm exceeds 1; `c_1 = g_1`.

    Yuan et al., "MARS: Unleashing the Power of Variance Reduction for Training Large Models" (2024), arXiv 2411.10438,
    Algorithm 1, with the last step's gradient, on its own batch, in the place of that of its parameters on this batch:
    what the paper calls the approximate version. The exact one needs a second evaluation of the gradient in each step,
    which a transformation cannot make. The authors' program starts from a last gradient of 0, which makes the first c
    longer, and leaves vectors to AdamW: for that use `optax.masked`. Evidence: the authors' pretraining of GPT-2.

    Args:
        b1: β1 in [0, 1), that of stage 1.
        gamma: γ >= 0, how much of the correction is made.
        max_norm: what the norm of a leaf is clipped to; None: no clip.

    Returns:
        A transformation from gradients to c, in float32 or wider: in float16 the elements of a large leaf of norm 1
        would vanish. So a chain by hand gives float32 updates for half-precision gradients; `mars` casts them back. The
        state is `PreviousGradientState`, 4 bytes per parameter.

    Raises:
        ValueError: an argument out of range; at update, gradients of another structure or shape than the parameters, or
            a max_norm inside `shard_map(..., check_vma=False)` or `jax.pmap`, where types do not tell what is a shard.
        TypeError: an argument that is no number; at update, leaves that are no floating arrays, or a state that is not
            its own.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.optimizers.reduce_variance(b1=0.5, gamma=0.5)
        >>> state = tx.init(jnp.zeros(1))
        >>> for g in (0.2, 0.4):
        ...     c, state = tx.update(jnp.array([g]), state)
        >>> c, state.gradient
        (Array([0.5], dtype=float32), Array([0.4], dtype=float32))
    """
    b1 = hyperparameters.decay_rate("b1", b1)
    gamma = hyperparameters.nonnegative("gamma", gamma)
    limit = None if max_norm is None else hyperparameters.nonnegative("max_norm", max_norm)

    def zeros(path: Any, p: Any) -> tuple[jax.Array]:
        dtype = jax.dtypes.canonicalize_dtype(numerics.compute_dtype(leaf_dtype("parameter", path, p)))
        return (jnp.zeros_like(p, dtype=dtype),)

    def init(params: optax.Params) -> PreviousGradientState:
        return PreviousGradientState(jnp.zeros([], jnp.int32), first_state(zeros, 1, params)[0])

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, PreviousGradientState]:
        before = _check_state(state)
        check_fits(updates, before.gradient, of_state=True)
        count = jnp.asarray(before.count)
        own = shards.varying(count)
        if limit is not None and not shards.types_tell():
            raise ValueError(NOT_TOLD)

        def on_leaf(came: jax.Array, kept: jax.Array) -> tuple[jax.Array, jax.Array]:
            kept = jnp.asarray(kept)
            g = jnp.asarray(came, numerics.compute_dtype(jnp.result_type(came), kept.dtype))
            factor = numerics.as_scalar(gamma * b1 / (1 - b1), numerics.real_dtype(g.dtype))
            # With γ = 0 nothing is added, instead of 0, which would make the compiler contract Adam's sums otherwise.
            still = isinstance(factor, float) and factor == 0.0
            c = g if still else corrected(g, jnp.where(count == 0, g, kept.astype(g.dtype)), factor)
            if limit is not None:
                limit_here = numerics.as_scalar(limit, numerics.real_dtype(g.dtype))
                c = clip_by_norm(c, limit_here, shards.axes_of(own, c, kept))
            return c, numerics.clamp(g, float(jnp.finfo(kept.dtype).max)).astype(kept.dtype)

        c, gradient = map_leaves(on_leaf, 2, updates, before.gradient)
        return c, PreviousGradientState(increment(count), gradient)

    return optax.GradientTransformationExtraArgs(init, update)


def _check_state(state: Any) -> PreviousGradientState:
    if not isinstance(state, PreviousGradientState):
        raise wrong_state("PreviousGradientState", state)
    return state


def _in_dtype_of_gradients(tx: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """The updates of tx rounded once, to the dtype of what came in."""

    def rounded(g: jax.Array, u: jax.Array) -> tuple[jax.Array]:
        return (u.astype(update_dtype(g, u)),)

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        found, state = tx.update(updates, state, params, **extra_args)
        return map_leaves(rounded, 1, updates, found)[0], state

    return optax.GradientTransformationExtraArgs(tx.init, Update(update, about(tx).step, why=about(tx).why))


@names_hints
def mars(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.95,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    gamma: Scalar = 0.025,
    max_norm: Scalar | None = 1.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask | None = None,
    *,
    nu_dtype: DTypeLike | None = None,
    precise: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """MARS-AdamW, approximate: `reduce_variance` before `adamw`, and equal to that with `gamma=0, max_norm=None`.

    `θ_t = θ_{t-1} - α (m̂_t / (√(v̂_t + ε_root) + ε) + λ θ_{t-1})`, m and v the averages of c as in `reduce_variance`.

    Yuan et al. (2024), arXiv 2411.10438, Algorithm 2, with the paper's β1 and β2.

    Args:
        learning_rate: α, a number or a schedule over the step count, see `scale_by_lr`.
        b1: β1 in [0, 1), how much of m a step keeps.
        b2: β2 in [0, 1), how much of v a step keeps.
        eps: ε >= 0, added to the root of v, see `bias_correction`.
        eps_root: ε_root >= 0, added to v inside the root.
        gamma: γ >= 0, how much of the correction is made, see `reduce_variance`.
        max_norm: what the norm of a leaf is clipped to; None: no clip.
        mu_dtype: the dtype or codec that stores m, None: float32 or wider, see `scale_by_moments`.
        weight_decay: λ, a number or a schedule, see `add_decayed_weights`.
        mask: which leaves decay: a tree of booleans, or a function that makes one, as `adamx.not_matching` does.
        nu_dtype: the dtype or codec that stores v, None: float32 or wider, see `scale_by_moments`.
        precise: exact for β1 and β2 close to 1, see `scale_by_moments`.

    Returns:
        A transformation from gradients to updates in their dtype that needs the parameters; its state is
        `(PreviousGradientState, state of adamw)`.

    Raises:
        ValueError, TypeError: as the stages do.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx, params = adamx.mars(0.1, weight_decay=0.0), jnp.ones(1)
        >>> tx.update(jnp.array([2.0]), tx.init(params), params)[0].round(3)
        Array([-0.1], dtype=float32)
    """
    step = adamw(learning_rate, b1, b2, eps, eps_root, mu_dtype, weight_decay, mask, nu_dtype=nu_dtype, precise=precise)
    return _in_dtype_of_gradients(chain(reduce_variance(b1, gamma, max_norm), step))
