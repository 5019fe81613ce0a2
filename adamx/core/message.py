"""The message between stage 1 and stage 2: what lines 9 to 11 need of lines 5 to 8."""

import dataclasses
import functools
import math
from typing import Any, ClassVar, NamedTuple, NoReturn, Self, TypeVar

import jax
import jax.numpy as jnp

from adamx import numerics
from adamx.numerics import Scalar
from adamx.storage import Codec, Float
from adamx.storage.codec import is_half
from adamx.trees import Tree, check_fits, map_leaves, named_leaves, path_name

HINT = (
    "Moments is the message from scale_by_moments to bias_correction, not a tree of arrays: "
    "put other transformations before scale_by_moments() or after bias_correction(), "
    "and end the pair with bias_correction() or, to leave the correction out, uncorrected(). "
    "on_first_moment(tx) applies tx to m alone; moments.as_dict() is a plain tree to look at"
)

WIDE = "moments are in compute precision, float32 or wider"


class Weight(NamedTuple):
    """The weight `1 - decay^count` that an average from zero has seen, not yet evaluated.

    It is evaluated where it divides, inside one compiled function: `1 - decay**count` run op by op is off by 7e-6.
    """

    decay: Scalar
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    precise: bool = False

    def evaluate(self) -> jax.Array:
        """The weight as a float32 scalar, float64 under x64."""
        weigh = jax.jit(numerics.ema_weight, static_argnames=("decay", "precise") if self.precise else "precise")
        return weigh(self.decay, self.count, precise=self.precise)


def correct(moment: Tree, weight: Weight | Scalar) -> Tree:
    """`moment / (1 - β^t)` on every leaf; a weight of the number 1.0 says that it is corrected already."""
    if isinstance(weight, float) and weight == 1.0:
        return moment
    if not isinstance(weight, Weight):
        return _divide(moment, jnp.asarray(weight, float))
    if weight.precise:
        return _divide(moment, numerics.ema_weight(weight.decay, weight.count, precise=True))
    return _weigh_and_divide(moment, weight.decay, weight.count)


@functools.partial(jax.jit, inline=True)
def _weigh_and_divide(moment: Tree, decay: Scalar, count: jax.Array) -> Tree:
    """One compiled function, also outside jit and over the whole tree, where alone it gives the bits of optax's."""
    return _divide(moment, numerics.ema_weight(decay, count))


def _divide(moment: Tree, weight: jax.Array) -> Tree:
    def formula(m: jax.Array) -> jax.Array:
        return numerics.divide(m, weight.astype(numerics.real_dtype(m.dtype)))

    return jax.tree.map(formula, moment)


def _no_tree(*_: Any) -> NoReturn:
    raise TypeError(HINT)


@dataclasses.dataclass(frozen=True, eq=False)
class Message:
    """What stage 1 tells the stages behind it: m, and a second average of a kind that the subclass names.

    A subclass of your own is the message of a stage 1 whose v averages something else than squares: stages that need
    squares then refuse it, and `adamx.quotient(..., kind=...)` takes it. Its fields are those of `Moments`.

    Attributes:
        power: the power of |g| that the second average holds: a step divides by this root of it.
        second: what the second average is, for the errors.
        quotient: the stage that ends the pair, for the errors.

    Example:
        >>> import adamx
        >>> class AbsoluteMoments(adamx.Message):
        ...     power, second, quotient = 1.0, "a v that averages |g|", "over_mean()"
        >>> over_mean = adamx.quotient("over_mean()", lambda m_hat, v_hat: m_hat / v_hat, kind=AbsoluteMoments)
    """

    power: ClassVar[float]
    second: ClassVar[str] = "a v of another kind"
    quotient: ClassVar[str] = "the stage 2 made for it"

    count: jax.Array
    gradients: Tree
    mu: Tree
    nu: Tree
    b1: Scalar
    b2: Scalar
    mu_weight: Weight | Scalar
    nu_weight: Weight | Scalar
    nu_codec: Codec = dataclasses.field(default_factory=Float)

    def __init_subclass__(cls) -> None:
        jax.tree_util.register_pytree_node(cls, _no_tree, _no_tree)

    def __post_init__(self) -> None:
        for name in ("mu", "nu"):
            tree = getattr(self, name)
            if any(is_half(jnp.result_type(x)) for x in jax.tree.leaves(tree)):  # paths are for the error alone
                where, x = next((where, x) for where, x in named_leaves(tree).items() if is_half(jnp.result_type(x)))
                raise TypeError(f"{type(self).__name__}: {name} at {where} has dtype {x.dtype}: {WIDE}")

    def m_hat(self) -> Tree:
        """Line 9: `m̂_t = m_t / (1-β1^t)`, or m as it is where a stage has corrected it already."""
        return correct(self.mu, self.mu_weight)

    def v_hat(self) -> Tree:
        """Line 10: `v̂_t = v_t / (1-β2^t)`, or v as it is where a stage has corrected it already."""
        return correct(self.nu, self.nu_weight)

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed: how a stage of your own answers.

        `mu` is an average from zero, as the old one; `m_hat` and `v_hat` are corrected already, and stage 2 divides
        them by nothing. A new `nu` comes with its `nu_weight`, since nothing in v tells whether it is corrected:
        `nu_weight=moments.nu_weight` where the new v is an average from zero as the old one is.

        Raises:
            ValueError: trees of another structure or shape than those that they replace; `nu` without `nu_weight`.
            TypeError: a leaf that is no floating array; `mu` or `nu` in another dtype than the compute precision that
                they came in, complex `nu`; a field that `Moments` does not have.
        """
        for corrected, field in (("m_hat", "mu"), ("v_hat", "nu")):
            if corrected in changes:
                changes |= {field: changes.pop(corrected), f"{field}_weight": 1.0}
        unknown = changes.keys() - {field.name for field in dataclasses.fields(self)}
        if unknown:
            raise TypeError(f"Moments has no field {sorted(unknown)[0]!r}: see adamx.Moments")
        if "nu" in changes and "nu_weight" not in changes:
            raise ValueError(
                "Moments.replace(nu=...) does not say whether the new v is corrected: v_hat=... if it is, and "
                "nu=... with nu_weight=moments.nu_weight if it is an average from zero as the old one is"
            )
        for name in changes.keys() & {"gradients", "mu", "nu"}:
            _check_alike(name, changes[name], getattr(self, name))
        return dataclasses.replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """The fields of numbers as a plain dict of trees, which may leave a jitted function, weights evaluated."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "nu_codec"]
        fields = {name: getattr(self, name) for name in names}
        return {name: value.evaluate() if isinstance(value, Weight) else value for name, value in fields.items()}

    def _refuse(self, *_: Any) -> NoReturn:
        raise TypeError(HINT)

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __truediv__ = __rtruediv__ = __pow__ = __neg__ = __abs__ = _refuse
    __jax_array__ = __array__ = __iter__ = __len__ = __getitem__ = _refuse


class Moments(Message):
    """The message from stage 1 to stage 2: both moments after a step, the gradients, the count, β1 and β2.

    It exists inside one `update` and is never stored. It is not a tree for JAX, because a transformation of optax
    between the stages would otherwise rescale `nu` or add noise to it without an error.

    Attributes:
        count: the step t, an int32 scalar that starts at 1 and saturates.
        gradients: g_t as it came.
        mu: m_t, in compute precision (float32 or wider).
        nu: v_t, in compute precision, real and non-negative.
        b1: β1.
        b2: β2.
        mu_weight: what `m_hat()` divides m by, 1-β1^t; the number 1.0 if m is corrected already.
        nu_weight: what `v_hat()` divides v by, 1-β2^t; the number 1.0 if v is corrected already.
        nu_codec: how v is stored, for a stage that stores another m.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> stage = adamx.scale_by_moments(b1=0.2)
        >>> moments, state = stage.update(jnp.array([10.0]), stage.init(jnp.zeros(1)))
        >>> moments.mu, moments.m_hat()
        (Array([8.], dtype=float32), Array([10.], dtype=float32))
    """

    power = 2.0
    second = "a v that averages squares"
    quotient = "bias_correction()"


class InfinityMoments(Message):
    """The message of AdaMax: `nu` is u, the decayed largest |g|, which starts from its first gradient."""

    power = math.inf
    second = "the largest gradients of scale_by_infinity_moments"
    quotient = "divide_by_infinity_norm()"

    def m_hat(self) -> Tree:
        """Line 9, from an m that is held so that a gradient near the largest float does not overflow by rounding."""
        weight = self.mu_weight
        if not isinstance(weight, Weight):
            return correct(self.mu, weight)
        held_by = functools.partial(_held, weight.evaluate())
        return correct(map_leaves(held_by, 1, self.mu)[0], weight)


def _held(weight: jax.Array, m: jax.Array) -> tuple[jax.Array]:
    return (numerics.clamp(m, (weight * numerics.below_largest(m.dtype)).astype(numerics.real_dtype(m.dtype))),)


def _check_alike(name: str, new: Tree, old: Tree) -> None:
    """Raises where a tree cannot take the place of a field of `Moments`."""
    check_fits(new, old, f"Moments.replace: the new {name}", f"old {name}")
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(new), jax.tree.leaves(old), strict=True):
        if name != "gradients" and x.dtype != y.dtype:
            raise TypeError(
                f"Moments.replace: the new {name} at {path_name(path)} has dtype {x.dtype}, the old one {y.dtype}: "
                f"{WIDE}"
            )


M = TypeVar("M", bound=Message)


def check_message(stage: str, updates: Any, kind: type[M] = Moments) -> M:
    """The message itself, or a TypeError that says which stage must come before or behind.

    Args:
        stage: the stage that asks, as it is called.
        updates: what it got.
        kind: what it is right for; `Message`: for every second average.
    """
    if isinstance(updates, kind):
        return updates
    if isinstance(updates, Message):
        raise TypeError(
            f"{stage} takes {kind.second}, got {type(updates).__name__} with {updates.second}: "
            f"put {updates.quotient} behind the stage that emits it"
        )
    raise TypeError(
        f"{stage} takes the Moments that scale_by_moments emits, got {type(updates).__name__}: "
        f"optax.chain(adamx.scale_by_moments(), {stage}, adamx.scale_by_lr(learning_rate))"
    )
