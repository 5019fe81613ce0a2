"""One average of a tree, taken step by step and kept by a codec."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from adamx import hyperparameters, numerics
from adamx.numerics import Scalar
from adamx.storage import Codec
from adamx.storage.choice import moment_codec
from adamx.storage.codec import Stored, first_moments, precision
from adamx.storage.dither import AVERAGE, MOMENTS, Walk, fraction, walks
from adamx.storage.floats import Float
from adamx.storage.pairs import half_ulp
from adamx.trees import Tree


@dataclasses.dataclass(frozen=True, eq=False)
class Average:
    """`a_t = d a_{t-1} + (1-d) x_t` from `a_0 = 0`: how it is averaged, and how it is stored.

    Attributes:
        name: of the argument that gives d, for errors.
        decay: d in [0, 1); None: it is known in each step only.
        codec: how it is stored.
        precise: whether it is averaged in the form that is exact for d close to 1, see `numerics.ema`.
        bounded: holds an average within what can be stored, from it and the largest number of its storage.
        what: whose dither it walks with, MOMENTS or AVERAGE.
    """

    name: str
    decay: Scalar | None
    codec: Codec
    precise: bool
    bounded: Callable[[jax.Array, float], jax.Array] = numerics.bound_first_moment
    what: int = MOMENTS

    @functools.cached_property
    def dithers_sum(self) -> bool:
        """Whether it is, or may be, so slow that its float32 sum is dithered, see `numerics.ema`."""
        known = isinstance(self.decay, float)
        return self.precise and (not known or numerics.needs_dither(float(self.decay or 0.0)))

    def zeros(self, params: Tree) -> Tree:
        """The average before the first step."""
        return first_moments(params, (self.codec, False))[0]

    def walks(self, tree: Tree, count: Any, offsets: Tree | None) -> list[Tree]:
        """The dither of each leaf in a step, a tree in a list; an empty list if a step needs none.

        Args:
            tree: of arrays.
            count: the number of the step.
            offsets: where shards begin, see `walks` of the dither.
        """
        if not (self.codec.dithered or self.dithers_sum):
            return []
        return [walks(tree, count, self.what, (self.codec.seed,), offsets)]

    def step(
        self,
        decay: Scalar,
        x: jax.Array,
        kept: Stored,
        dtype: DTypeLike | None,
        walk: Walk | None = None,
        first: Any = None,
    ) -> tuple[jax.Array, Stored]:
        """The average after a step on one leaf: fresh, and as it is kept.

        Args:
            decay: d of this step.
            x: what is averaged.
            kept: the average before.
            dtype: in which it is averaged; None: in that of x and of the average before, at least float32.
            walk: the dither, where there is one.
            first: whether the average becomes x, a boolean scalar; None: it does not.
        """
        kept = jax.tree.map(jnp.asarray, kept)
        dtype = numerics.compute_dtype(jnp.result_type(x), precision(kept)) if dtype is None else dtype
        real = numerics.real_dtype(dtype)
        if not self.precise:
            hyperparameters.check_below_one(self.name, decay, real)
        bits = None if walk is None else walk.thresholds(jnp.shape(x))
        before, x = self.codec.decode(kept, dtype), numerics.to_dtype(x, dtype)
        threshold = fraction(bits) if bits is not None and self.dithers_sum and dtype == jnp.float32 else None
        a = numerics.ema(numerics.as_scalar(decay, real), before, x, precise=self.precise, threshold=threshold)
        a = self.bounded(a if first is None else jnp.where(first, x, a), self.codec.largest(kept))
        return a, self.codec.encode(a, kept, bits if self.codec.dithered else None, square=False)


def of_parameters(decay: float | None, dtype: Any) -> Average:
    """An average of parameters. They differ little from it, so what stores it narrowly is dithered at any d.

    Args:
        decay: d; None: it is known in each step only.
        dtype: the dtype that stores it, or a codec; None: float32, or float64 for float64 parameters.

    Raises:
        TypeError: neither a floating dtype nor a codec.
        ValueError: it rounds to nearest.
    """
    codec = moment_codec("dtype", dtype, 1.0)
    if isinstance(codec, Float) and half_ulp(codec.dtype) and not codec.dithered:
        raise ValueError(
            f"dtype={codec!r} rounds to nearest, where an average of parameters stalls. Pass stochastic=True, or the "
            "dtype alone"
        )
    return Average("decay", decay, codec, True, numerics.saturate_first_moment, AVERAGE)
