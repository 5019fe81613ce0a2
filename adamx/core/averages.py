"""Lines 7 and 8 of Algorithm 1 on one leaf, with how its moments are stored."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from adamx import hyperparameters, numerics
from adamx.core.message import Message, Moments
from adamx.core.state import MomentsState, check_state
from adamx.numerics import Scalar
from adamx.storage import Codec
from adamx.storage.choice import moment_codecs
from adamx.storage.codec import Quantized, Stored, check_fits_moment, is_half, is_quantized, precision, wrong_codes
from adamx.storage.dither import Thresholds, fraction, lower_half
from adamx.storage.floats import Float
from adamx.storage.int4 import decode_beside, encode_beside
from adamx.storage.pairs import check_leaf
from adamx.trees import Tree, path_name
from adamx.variables import flatten_with_path

Mean = Callable[[jax.Array, jax.Array], jax.Array]
"""`β a + (1-β) x`, from an average a and x."""

SecondMoment = Callable[[Mean, float, jax.Array, jax.Array, jax.Array], jax.Array]
"""Line 8: from the mean, the largest number that the storage of v can hold, v_{t-1}, g_t and m_t to v_t."""


def of_squares(mean: Mean, largest: float, v: jax.Array, g: jax.Array, m: jax.Array) -> jax.Array:
    """Adam's line 8, `β2 v + (1-β2) g²`."""
    return numerics.saturate_second_moment(mean(v, numerics.square(g)), largest)


class Loaded(NamedTuple):
    """A gradient and the moments before it, in compute precision, float32 or wider.

    Attributes:
        g: the gradient.
        m: m_{t-1}.
        v: v_{t-1}.
        first: `β1 m + (1-β1) x`, from m and x.
        second: `β2 v + (1-β2) x`, from v and x.
        bits: 2^32 times the thresholds of the dither, or None.
    """

    g: jax.Array
    m: jax.Array
    v: jax.Array
    first: Mean
    second: Mean
    bits: jax.Array | None


@dataclasses.dataclass(frozen=True, eq=False)
class Averages:
    """Both moments of one leaf: how they are averaged, and how they are stored.

    Attributes:
        second: line 8.
        message: what stage 1 emits: it says what v averages.
        b1: β1.
        b2: β2.
        mu_codec: how m is stored.
        nu_codec: how v is stored.
        precise: whether averages are precise, see `scale_by_moments`.
    """

    second: SecondMoment
    message: type[Message]
    b1: Scalar
    b2: Scalar
    mu_codec: Codec
    nu_codec: Codec
    precise: bool

    @functools.cached_property
    def dithered(self) -> bool:
        """Whether a moment is."""
        return any(self.dithers)

    @functools.cached_property
    def dithers(self) -> tuple[bool, bool]:
        """Whether m is dithered, and v."""
        return self.mu_codec.dithered, self.nu_codec.dithered

    @functools.cached_property
    def dithers_sum(self) -> bool:
        """Whether v is so slow that its float32 sum is dithered, see `numerics.ema`."""
        return self.precise and numerics.needs_dither(float(self.b2))

    @functools.cached_property
    def draws(self) -> bool:
        """Whether a step needs the thresholds of the dither."""
        return self.dithered or self.dithers_sum

    @property
    def seeds(self) -> tuple[int, int]:
        """Of the dither of m and v."""
        return self.mu_codec.seed, self.nu_codec.seed

    def replace(self, **changes: Any) -> "Averages":
        """The same with other fields."""
        return dataclasses.replace(self, **changes)

    def check(self, where: str, mu: Stored, nu: Stored) -> None:
        """Raises where the storages of one leaf do not go together."""
        check_leaf(where, self.mu_codec, mu, nu)

    def load(self, g: jax.Array, mu: Stored, nu: Stored, walk: Thresholds | None = None) -> Loaded:
        """Gradient and moments in compute precision, and how they are averaged."""
        of_m, of_v = precision(mu), precision(nu)
        dtype = numerics.compute_dtype(jnp.result_type(g), of_m, of_v)
        real = numerics.real_dtype(dtype)
        b1, b2 = numerics.as_scalar(self.b1, dtype), numerics.as_scalar(self.b2, real)
        wide = dtype if jnp.issubdtype(of_m, jnp.complexfloating) else real
        bits = None if walk is None else walk.thresholds(jnp.shape(g))
        threshold = fraction(bits) if bits is not None and self.dithers_sum and real == jnp.float32 else None
        first = functools.partial(numerics.ema, b1, precise=self.precise)
        second = functools.partial(numerics.ema, b2, precise=self.precise, threshold=threshold)
        v = self.nu_codec.decode(nu, real)
        m = decode_beside(self.mu_codec, mu, v, wide)
        return Loaded(numerics.to_dtype(g, wide), m, v, first, second, bits)

    def store(
        self, m: jax.Array, v: jax.Array, mu: Stored, nu: Stored, bits: jax.Array | None
    ) -> tuple[Stored, Stored]:
        """The moments as they are kept, in the types of those before."""
        of_m, of_v = self.dithers
        mu_bits = None if bits is None or not of_m else lower_half(bits)
        nu_bits = bits if of_v else None
        kept = self.nu_codec.encode(v, nu, nu_bits, square=True)
        decoded = functools.partial(self.nu_codec.decode, kept, v.dtype)
        return encode_beside(self.mu_codec, m, mu, mu_bits, decoded), kept

    def average(
        self, g: jax.Array, mu: Stored, nu: Stored, walk: Thresholds | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        """The moments after a gradient, and the thresholds that they are stored by."""
        g, m, v, first, second, bits = self.load(g, mu, nu, walk)
        bounded = numerics.bound_first_moment if self.message is Moments else numerics.saturate_first_moment
        m = bounded(first(m, g), self.mu_codec.largest(mu))  # line 7
        v = self.second(second, self.nu_codec.largest(nu), v, g, m)  # line 8
        return m, v, bits

    def step(self, g: jax.Array, mu: Stored, nu: Stored, walk: Thresholds | None = None) -> tuple[Any, ...]:
        """The moments after a gradient: fresh, and as they are kept."""
        mu, nu = jax.tree.map(jnp.asarray, (mu, nu))
        m, v, bits = self.average(g, mu, nu, walk)
        return m, v, *self.store(m, v, mu, nu, bits)


def averages_of(
    second: SecondMoment, b1: Any, b2: Any, mu_dtype: Any, nu_dtype: Any, precise: Any, message: type[Message] = Moments
) -> Averages:
    """The averages that these arguments of an optimizer ask for.

    Args:
        second: line 8 on one leaf.
        b1: β1, as an argument of an optimizer.
        b2: β2.
        mu_dtype: the dtype or codec that stores m.
        nu_dtype: the dtype or codec that stores v.
        precise: whether averages are precise, see `scale_by_moments`.
        message: what stage 1 emits.

    Raises:
        ValueError, TypeError: as `scale_by_moments` does.
    """
    precise = hyperparameters.flag("precise", precise)
    # b2 first: where both are of half precision, b2 is the trap
    b2 = hyperparameters.decay_rate("b2", b2, precise=precise)
    b1 = hyperparameters.decay_rate("b1", b1, precise=precise)
    codecs = moment_codecs(mu_dtype, nu_dtype, b1, b2, message.power)
    return Averages(second, message, b1, b2, *codecs, precise)


def check_storage(averages: Averages, nu: Tree) -> None:
    """Raises a TypeError where v is kept in another precision than its codec keeps it in: it would not be dithered."""
    codec = averages.nu_codec
    if not isinstance(codec, Float):
        return
    in_blocks = codec.resolution(True) is not None
    narrow = codec.dtype is not None and is_half(codec.dtype) and not in_blocks
    dtypes = {getattr(x, "dtype", None) for x in jax.tree.leaves(nu)} - {None}
    if not in_blocks and set(map(is_half, dtypes)) <= {narrow}:
        return
    for path, stored in flatten_with_path(nu, is_quantized)[0]:
        if not is_quantized(stored) and (
            is_half(jnp.result_type(stored)) != narrow or (in_blocks and jnp.ndim(stored))
        ):
            raise wrong_codes(f"{codec.dtype or 'float32'} at {path_name(path)}", str(jnp.result_type(stored)))


LARGEST = 1 - 2.0**-24
"""The largest number below 1 in float32."""


def check_rates(averages: Averages, moments: Tree) -> None:
    """Raises a ValueError where a decay rate rounds to 1 in the precision in which a moment is averaged."""
    known = hyperparameters.known(averages.b1), hyperparameters.known(averages.b2)
    if averages.precise or max(known[0] or 0.0, known[1] or 0.0) <= LARGEST:
        return
    of_moments = {precision(m) for m in jax.tree.leaves(moments, is_leaf=lambda m: isinstance(m, Quantized))}
    for dtype in {numerics.real_dtype(numerics.compute_dtype(dtype)) for dtype in of_moments}:
        hyperparameters.check_below_one("b1", averages.b1, dtype)
        hyperparameters.check_below_one("b2", averages.b2, dtype)


def checked_moments(averages: Averages, state: Any, gradients: Tree) -> MomentsState:
    """The state itself, or an error that says what of it, of the gradients or of β is wrong."""
    before = check_state(state, gradients)
    check_fits_moment(gradients, before.mu)
    check_storage(averages, before.nu)
    check_rates(averages, before.mu)
    return before
