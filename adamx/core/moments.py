"""Stage 1, lines 5 to 8 of Algorithm 1: the two averages."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from adamx import hyperparameters, numerics
from adamx.core.message import Moments, Weight, check_is_moments
from adamx.core.state import DitheredMomentsState, MomentsState, check_state, increment
from adamx.hyperparameters import names_hints
from adamx.numerics import Scalar
from adamx.storage import Codec
from adamx.storage.choice import moment_codecs
from adamx.storage.codec import Quantized, Stored, first_moments, precision, shapes
from adamx.storage.dither import MOMENTS, Walk, fraction, lower_half, walks
from adamx.storage.pairs import check_leaf
from adamx.trees import Tree, check_fits, map_leaves

Mean = Callable[[jax.Array, jax.Array], jax.Array]
"""`β2 v + (1-β2) x`, from v and x."""

SecondMoment = Callable[[Mean, float, jax.Array, jax.Array, jax.Array], jax.Array]
"""Line 8: from the mean, the largest number that the storage of v can hold, v_{t-1}, g_t and m_t to v_t."""


def of_squares(mean: Mean, largest: float, v: jax.Array, g: jax.Array, m: jax.Array) -> jax.Array:
    """Adam's line 8, `β2 v + (1-β2) g²`."""
    return numerics.saturate_second_moment(mean(v, numerics.square(g)), largest)


@dataclasses.dataclass(frozen=True, eq=False)
class _Averages:
    """Lines 7 and 8 on one leaf, with how its moments are stored."""

    second: SecondMoment
    p: float
    b1: Scalar
    b2: Scalar
    mu_codec: Codec
    nu_codec: Codec
    precise: bool

    @property
    def dithered(self) -> bool:
        return self.mu_codec.dithered or self.nu_codec.dithered

    @property
    def dithers_sum(self) -> bool:
        return self.precise and numerics.needs_dither(float(self.b2))

    def check(self, where: str, mu: Stored, nu: Stored) -> None:
        """Raises where the storages of one leaf do not go together."""
        check_leaf(where, self.mu_codec, mu, nu)

    def step(self, g: jax.Array, mu: Stored, nu: Stored, walk: Walk | None = None) -> tuple[Any, ...]:
        """The moments after a gradient: fresh, and as they are kept."""
        mu, nu = jax.tree.map(jnp.asarray, (mu, nu))
        dtype = numerics.compute_dtype(jnp.result_type(g), precision(mu), precision(nu))
        real = numerics.real_dtype(dtype)
        b1, b2 = numerics.as_scalar(self.b1, dtype), numerics.as_scalar(self.b2, real)
        wide = dtype if jnp.issubdtype(precision(mu), jnp.complexfloating) else real
        g, m, v = jnp.asarray(g, wide), self.mu_codec.decode(mu, wide), self.nu_codec.decode(nu, real)
        bits = None if walk is None else walk.thresholds(g.shape)
        threshold = fraction(bits) if bits is not None and self.dithers_sum and real == jnp.float32 else None

        m = numerics.ema(b1, m, g, precise=self.precise)  # line 7
        if self.p == 2:
            m = numerics.bound_first_moment(m, self.mu_codec.largest(mu))
        else:
            m = numerics.saturate_first_moment(m, self.mu_codec.largest(mu))
        mean = functools.partial(numerics.ema, b2, precise=self.precise, threshold=threshold)
        v = self.second(mean, self.nu_codec.largest(nu), v, g, m)  # line 8

        mu_bits = None if bits is None or not self.mu_codec.dithered else lower_half(bits)
        mu = self.mu_codec.encode(m, mu, mu_bits, square=False)
        return m, v, mu, self.nu_codec.encode(v, nu, bits if self.nu_codec.dithered else None, square=True)


def check_rates(b1: Scalar, b2: Scalar, moments: Tree) -> None:
    """Raises a ValueError where a decay rate rounds to 1 in the precision in which a moment is averaged."""
    of_moments = {precision(m) for m in jax.tree.leaves(moments, is_leaf=lambda m: isinstance(m, Quantized))}
    for dtype in {numerics.real_dtype(numerics.compute_dtype(dtype)) for dtype in of_moments}:
        hyperparameters.check_below_one("b1", b1, dtype)
        hyperparameters.check_below_one("b2", b2, dtype)


def moments_of(
    second: SecondMoment,
    b1: Scalar,
    b2: Scalar,
    mu_dtype: DTypeLike | None,
    nu_dtype: DTypeLike | None,
    precise: bool,
    p: float = 2.0,
) -> optax.GradientTransformationExtraArgs:
    """Stage 1 with a second moment of its own: what `scale_by_moments` and the variants of line 8 are made of.

    Args:
        second: line 8 on one leaf.
        b1: as for `scale_by_moments`, as are those that follow.
        b2: likewise.
        mu_dtype: likewise.
        nu_dtype: likewise.
        precise: likewise.
        p: the power of |g| that v averages, see `Moments`.
    """
    precise = hyperparameters.flag("precise", precise)
    b2 = hyperparameters.decay_rate(
        "b2", b2, precise=precise
    )  # first: where both are of half precision, b2 is the trap
    b1 = hyperparameters.decay_rate("b1", b1, precise=precise)
    mu_codec, nu_codec = moment_codecs(mu_dtype, nu_dtype, b1, b2, p)
    averages = _Averages(second, p, b1, b2, mu_codec, nu_codec, precise)
    state_type = DitheredMomentsState if averages.dithered else MomentsState

    def init(params: optax.Params) -> MomentsState | DitheredMomentsState:
        mu, nu = first_moments(params, (mu_codec, False), (nu_codec, True), check=averages.check)
        return state_type(jnp.zeros([], jnp.int32), mu, nu, *([jnp.zeros([], jnp.uint32)] if averages.dithered else []))

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[Any, MomentsState | DitheredMomentsState]:
        before = check_state(state_type, state, updates)
        check_fits(updates, shapes(before.mu), of_state=True)
        if not precise:
            check_rates(b1, b2, before.mu)
        count = increment(jnp.asarray(before.count))  # line 5
        step = before.step + 1 if averages.dithered else count
        columns = [before.mu, before.nu]
        if averages.dithered or averages.dithers_sum:
            seeds = (mu_codec.seed, nu_codec.seed)
            columns.append(walks(updates, step, MOMENTS, seeds, extra_args.get("dither_offset")))
        m, v, mu, nu = map_leaves(averages.step, 4, updates, *columns)  # lines 7 and 8
        moments = Moments(
            count=count,
            gradients=updates,
            mu=m,
            nu=v,
            b1=b1,
            b2=b2,
            mu_weight=Weight(b1, count, precise),
            nu_weight=Weight(b2, count, precise) if p == 2 else 1.0,
            p=p,
            nu_codec=nu_codec,
        )
        return moments, state_type(count, mu, nu, *([step] if averages.dithered else []))

    return optax.GradientTransformationExtraArgs(init, update)


@names_hints
def scale_by_moments(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    *,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    precise: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Averages the gradients and their squares.

    `m_t = β1 m_{t-1} + (1-β1) g_t`, `v_t = β2 v_{t-1} + (1-β2) g_t²`, from `m_0 = v_0 = 0`.

    Kingma & Ba (2015), Algorithm 1, lines 5 to 8. Averages in float32 or wider whatever the gradients are, so that
    half-precision squares neither vanish nor overflow; v saturates at the largest finite number that its storage has.
    Inside `shard_map` dithered moments need the extra argument `dither_offset` of update, a tree with the place of each
    shard in its leaf, to give the bits of the unsharded run: `adamx.storage.shard_offsets(gradients, specs)`.

    Args:
        b1: β1 in [0, 1), how much of m a step keeps.
        b2: β2 in [0, 1), how much of v a step keeps.
        mu_dtype: the floating dtype that stores m, or a codec of `adamx.storage`; None: float32, float64 for float64
            parameters. Half precision rounds to nearest where that tracks, else by dither. float16, float8 and `Int8`
            need the same in `nu_dtype`: in a block they know small elements of m less well than an exact v. A complex
            dtype stores complex moments, and real ones in its real part's dtype.
        nu_dtype: likewise for v, real; float32 and bfloat16 m go with all of them. A v that one gradient of the largest
            float32 number has filled takes 89,000 steps at β2 = 0.999 to fall back to 1; its element stands still so
            long.
        precise: average and weigh in forms that are exact to a few units in the last place in each step, for β close to
            1 and any count, instead of those that give the same bits as optax. Roundings still add up: after 1e7 steps
            v is within 1e-4.

    Returns:
        A transformation whose update gives `Moments`, to be taken by `bias_correction` or `uncorrected`, and whose
        state is `MomentsState`, or `DitheredMomentsState` with a wrapping step counter where a moment is dithered.

    Raises:
        ValueError: b1 or b2 out of range or of half precision; storages of m and v with which steps would be longer
            than twice the exact longest; at init, a leaf where only m is quantized; at update, gradients of another
            structure or shape than the parameters.
        TypeError: arguments of another type; traced b1 or b2 with `precise`; leaves that are not floating arrays;
            a state that is not this transformation's.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> tx = optax.chain(adamx.scale_by_moments(b1=0.2), adamx.bias_correction(), adamx.scale_by_lr(0.1))
        >>> updates, state = tx.update(jnp.array([10.0]), tx.init(jnp.zeros(1)))
        >>> updates.round(3)
        Array([-0.1], dtype=float32)
    """
    return moments_of(of_squares, b1, b2, mu_dtype, nu_dtype, precise)


def on_first_moment(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Applies a transformation of parameter-shaped trees to m alone, between stage 1 and stage 2.

    Args:
        tx: any transformation, `optax.clip_by_global_norm(1.0)` say; v is left as it is.

    Returns:
        A transformation from `Moments` to `Moments` that keeps the state of `tx`.

    Raises:
        TypeError: its update does not get `Moments`.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> signed = adamx.on_first_moment(optax.scale_by_sign())
        >>> tx = optax.chain(adamx.scale_by_moments(), signed, adamx.uncorrected())
        >>> tx.init(jnp.zeros(1))[1]
        EmptyState()
    """
    inner = optax.with_extra_args_support(tx)

    def update(
        updates: Any, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[Any, optax.OptState]:
        moments = check_is_moments("on_first_moment(tx)", updates, any_p=True)
        mu, state = inner.update(moments.mu, state, params, **extra_args)
        return moments.replace(mu=mu), state

    return optax.GradientTransformationExtraArgs(inner.init, update)
