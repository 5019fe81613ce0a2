"""The message between stage 1 and stage 2: what lines 9 to 11 need of lines 5 to 8."""

import dataclasses
from typing import Any, NamedTuple, NoReturn

import jax

from adamx import numerics
from adamx.numerics import Scalar
from adamx.storage import Codec, Float
from adamx.trees import Tree, check_fits, path_name

HINT = (
    "Moments is the message from scale_by_moments to bias_correction, not a tree of arrays: "
    "put other transformations before scale_by_moments() or after bias_correction(), "
    "and end the pair with bias_correction() or, to leave the correction out, uncorrected(). "
    "on_first_moment(tx) applies tx to m alone; moments.as_dict() is a plain tree to look at"
)


_EXACT: Codec = Float()


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


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Both moments after a step, with all that the second stage may want to know of the first.

    It lives inside one `update` and is never stored. JAX cannot look inside it: a transformation of optax placed
    between the stages would otherwise rescale or add noise to `nu` without a word.

    Attributes:
        count: the step t, an int32 scalar that starts at 1 and saturates.
        gradients: g_t as it came.
        mu: m_t, in compute precision (float32 or wider).
        nu: v_t, in compute precision, real and non-negative.
        b1: β1.
        b2: β2.
        mu_weight: what m̂ = m / weight divides by, 1-β1^t; the number 1.0 if m is corrected already.
        nu_weight: what v̂ = v / weight divides by, 1-β2^t; the number 1.0 if v is corrected already.
        p: the power of |g| that v averages, 2; infinity where v is the decayed maximum of |g| (AdaMax).
        nu_codec: how v is stored, for a stage that stores another m.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> stage = adamx.scale_by_moments(b1=0.2)
        >>> moments, state = stage.update(jnp.array([10.0]), stage.init(jnp.zeros(1)))
        >>> moments.as_dict()["mu"], round(float(moments.as_dict()["mu_weight"]), 4)
        (Array([8.], dtype=float32), 0.8)
    """

    count: jax.Array
    gradients: Tree
    mu: Tree
    nu: Tree
    b1: Scalar
    b2: Scalar
    mu_weight: Weight | float
    nu_weight: Weight | float
    p: float = 2.0
    nu_codec: Codec = _EXACT

    def replace(self, **changes: Any) -> "Moments":
        """A copy with some fields changed: how a stage of your own answers.

        A new `nu` comes with its `nu_weight`: nothing in v tells whether it is divided by its weight already. Pass
        `nu_weight=moments.nu_weight` where the new v is an average from zero as the old one is, and 1.0 where it is
        corrected.

        Raises:
            ValueError: trees of another structure or shape than those that they replace; `nu` without `nu_weight`.
            TypeError: a leaf that is no floating array; `mu` or `nu` in another dtype than the compute precision that
                they came in, complex `nu`; a field that `Moments` does not have.
        """
        unknown = changes.keys() - {field.name for field in dataclasses.fields(self)}
        if unknown:
            raise TypeError(f"Moments has no field {sorted(unknown)[0]!r}: see adamx.Moments")
        if "nu" in changes and "nu_weight" not in changes:
            raise ValueError(
                "Moments.replace(nu=...) needs nu_weight too: nu_weight=moments.nu_weight if the new v is an average "
                "from zero as the old one is, nu_weight=1.0 if it is corrected already"
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


def _check_alike(name: str, new: Tree, old: Tree) -> None:
    """Raises where a tree cannot take the place of a field of `Moments`."""
    check_fits(new, old, f"Moments.replace: the new {name}", f"old {name}")
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(new), jax.tree.leaves(old), strict=True):
        if name != "gradients" and x.dtype != y.dtype:
            raise TypeError(
                f"Moments.replace: the new {name} at {path_name(path)} has dtype {x.dtype}, the old one {y.dtype}: "
                "moments are in compute precision, float32 or wider"
            )


def _flatten(moments: Moments) -> NoReturn:
    raise TypeError(HINT)


def _unflatten(aux: Any, children: Any) -> NoReturn:
    raise TypeError(HINT)


jax.tree_util.register_pytree_node(Moments, _flatten, _unflatten)


def check_is_moments(stage: str, updates: Any, *, any_p: bool = False) -> Moments:
    """The message itself, or a TypeError that says which stage must come before.

    Args:
        stage: the stage that asks, as it is called.
        updates: what it got.
        any_p: whether the stage is right for every power that v may average, not for squares alone.
    """
    if not isinstance(updates, Moments):
        raise TypeError(
            f"{stage} takes the Moments that scale_by_moments emits, got {type(updates).__name__}: "
            f"optax.chain(adamx.scale_by_moments(), {stage}, adamx.scale_by_lr(learning_rate))"
        )
    if updates.p != 2 and not any_p:
        raise TypeError(
            f"{stage} takes a v that averages squares, these Moments come from scale_by_infinity_moments: "
            "end that with divide_by_infinity_norm()"
        )
    return updates
