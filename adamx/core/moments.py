"""Stage 1, lines 5 to 8 of Algorithm 1: the two averages."""

import functools
from typing import Any

import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from adamx.core import in_blocks
from adamx.core.averages import Averages, averages_of, checked_moments, of_squares
from adamx.core.errors import transformation
from adamx.core.message import Message, Moments, Weight, check_message
from adamx.core.state import MomentsState, increment
from adamx.hyperparameters import names_hints
from adamx.numerics import Scalar
from adamx.storage.codec import first_moments
from adamx.storage.dither import MOMENTS, walks
from adamx.trees import map_leaves


def moments_of(averages: Averages) -> optax.GradientTransformationExtraArgs:
    """Stage 1 with averages of its own: what `scale_by_moments` and the variants of line 8 are made of."""

    def init(params: optax.Params) -> MomentsState:
        codecs = (averages.mu_codec, False), (averages.nu_codec, True)
        return MomentsState(jnp.zeros([], jnp.int32), *first_moments(params, *codecs, check=averages.check))

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[Any, MomentsState]:
        before = checked_moments(averages, state, updates)
        count = increment(jnp.asarray(before.count))  # line 5
        columns = [before.mu, before.nu]
        if averages.draws:
            columns.append(walks(updates, count, MOMENTS, averages.seeds, extra_args.get("dither_offset")))
        m, v, mu, nu = map_leaves(functools.partial(in_blocks.step, averages), 4, updates, *columns)  # lines 7 and 8
        b1, b2, precise = averages.b1, averages.b2, averages.precise
        moments = averages.message(
            count=count,
            gradients=updates,
            mu=m,
            nu=v,
            b1=b1,
            b2=b2,
            mu_weight=Weight(b1, count, precise),
            nu_weight=Weight(b2, count, precise) if averages.message is Moments else 1.0,
            nu_codec=averages.nu_codec,
        )
        return moments, MomentsState(count, mu, nu)

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
    shard in its leaf, to be bitwise identical to the unsharded run: `adamx.storage.shard_offsets(gradients, specs)`.

    Args:
        b1: β1 in [0, 1), how much of m a step keeps.
        b2: β2 in [0, 1), how much of v a step keeps.
        mu_dtype: the floating dtype that stores m, or a codec of `adamx.storage`; None: float32, float64 for float64
            parameters. Half precision is dithered, or rounded to nearest if the average follows then. float16, float8
            and `Int8` need the same in `nu_dtype`. A complex dtype stores complex moments, and real ones in the dtype
            of its real part.
        nu_dtype: a real floating dtype that stores v, or a codec; None: float32, float64 for float64 parameters. All
            of them go with a float32 or bfloat16 m. After a gradient of the largest float32 number v takes 89,000
            steps at β2 = 0.999 to fall back to 1; its element does not move until then.
        precise: computes averages and weights in forms that are exact to a few units in the last place in each step,
            for β1 and β2 close to 1 and any count. Not bitwise identical to optax. Roundings still add up: after 1e7
            steps v is within 1e-4.

    Returns:
        A transformation whose update gives `Moments`, to be taken by `bias_correction` or `uncorrected`, and whose
        state is `MomentsState`.

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
    return moments_of(averages_of(of_squares, b1, b2, mu_dtype, nu_dtype, precise))


def on_first_moment(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Applies a transformation to m only and leaves v, between stage 1 and stage 2.

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
    inner = transformation(tx)

    def update(
        updates: Any, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[Any, optax.OptState]:
        moments = check_message("on_first_moment(tx)", updates, Message)
        mu, state = inner.update(moments.mu, state, params, **extra_args)
        return moments.replace(mu=mu), state

    return optax.GradientTransformationExtraArgs(inner.init, update)
