"""Other ways to hold a moment in 8 or 4 bits, as codecs: a table of magnitudes from 0 to the block's largest."""

import dataclasses
import functools
from contextlib import AbstractContextManager
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

import adamx

SMALLEST = 4096
"""Leaves with fewer elements stay float32, as torchao's do."""


class Table(NamedTuple):
    """Codes that are the places of magnitudes in a table.

    Attributes:
        mu: 128 magnitudes in [0, 1], rising, for m, whose code has a sign.
        nu: 256 magnitudes for v.
        block_size: neighbours within the last axis that share a float32 scale.
        rounding: "nearest", "independent" random bits, or "dither".
        apart: whether the largest element of a block has a number of its own and the scale is that of the others.
    """

    mu: tuple[float, ...]
    nu: tuple[float, ...]
    block_size: int = 64
    rounding: str = "dither"
    apart: bool = False
    seed: int = 0

    @property
    def dithered(self) -> bool:
        return self.rounding != "nearest"

    def zeros(self, like: Any, dtype: Any, *, square: bool, where: str = "") -> Any:
        if np.prod(like.shape) < SMALLEST:
            return jnp.zeros_like(like, dtype=jnp.float32)
        codes = jnp.zeros(jnp.shape(like), jnp.uint8 if square else jnp.int8)
        blocks = -(-codes.shape[-1] // self.block_size)
        return adamx.storage.Quantized(codes, jnp.zeros((*codes.shape[:-1], blocks, 1 + self.apart), jnp.float32))

    def _points(self, codes: jax.Array) -> jax.Array:
        return jnp.asarray(self.nu if codes.dtype == jnp.uint8 else self.mu, jnp.float32)

    def decode(self, stored: Any, dtype: Any) -> jax.Array:
        if isinstance(stored, jax.Array):
            return stored
        codes = _split(stored.codes, self.block_size).astype(jnp.int32)
        points = self._points(stored.codes)
        sizes = points[jnp.abs(codes)] * stored.scales[..., :1]
        if self.apart:
            sizes = jnp.where(jnp.abs(codes) == len(points) - 1, stored.scales[..., 1:], sizes)
        return _merged(jnp.sign(codes) * sizes, stored.codes.shape).astype(dtype)

    def encode(self, moment: jax.Array, like: Any, bits: jax.Array | None, *, square: bool) -> Any:
        if isinstance(like, jax.Array):
            return moment
        points = self._points(like.codes)
        x = _split(moment.astype(jnp.float32), self.block_size)
        top = scale = jnp.max(jnp.abs(x), axis=-1)
        at_top = (jnp.abs(x) >= top[..., None] * 0.999999) & self.apart
        if self.apart:
            scale = jnp.max(jnp.where(at_top, 0, jnp.abs(x)), axis=-1) / points[-2]
        y = jnp.abs(x) / jnp.where(scale > 0, scale, 1)[..., None]
        below = jnp.clip(jnp.searchsorted(points, y, side="right", method="compare_all") - 1, 0, len(points) - 2)
        fraction = (y - points[below]) / (points[below + 1] - points[below])
        if bits is None:
            threshold = 0.5
        else:
            random = _scramble(bits) if self.rounding == "independent" else bits
            threshold = _split((random >> 8).astype(jnp.float32), self.block_size) * 2.0**-24
        code = below + (fraction > threshold)
        if square:
            code = jnp.where(x > 0, jnp.maximum(code, 1), code)
        code = jnp.where(at_top, len(points) - 1, code)
        codes = _merged(jnp.where(x < 0, -code, code), moment.shape).astype(like.codes.dtype)
        return adamx.storage.Quantized(codes, jnp.stack([scale, top] if self.apart else [scale], -1))

    def largest(self, stored: Any) -> float:
        return float(jnp.finfo(jnp.float32).max)


def _split(x: jax.Array, size: int) -> jax.Array:
    missing = -x.shape[-1] % size
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)]).reshape(*x.shape[:-1], -1, size)


def _merged(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return x.reshape(*shape[:-1], -1)[..., : shape[-1]]


@dataclasses.dataclass(frozen=True)
class OneStride:
    """Another codec, for thresholds that all walk with the golden ratio."""

    codec: Any
    dithered: bool = True
    seed: int = 0

    def zeros(self, *args: Any, **kwargs: Any) -> Any:
        return self.codec.zeros(*args, **kwargs)

    def decode(self, *args: Any) -> jax.Array:
        return self.codec.decode(*args)

    def encode(self, moment: jax.Array, like: Any, bits: jax.Array, *, square: bool) -> Any:
        return self.codec.encode(moment, like, bits, square=square)

    def largest(self, stored: Any) -> float:
        return self.codec.largest(stored)

    def strides(self) -> AbstractContextManager[Any]:
        """While this lasts, traced thresholds have one stride."""
        return mock.patch("adamx.storage.dither.STRIDES", (0x9E3779B9,) * 4)


class Nearest(OneStride):
    """Another codec, rounded to nearest, where adamx itself refuses to."""

    def encode(self, moment: jax.Array, like: Any, bits: jax.Array | None, *, square: bool) -> Any:
        return self.codec.encode(moment, like, None, square=square)


class Halfway(OneStride):
    """Another codec, rounded to nearest by a threshold of a half."""

    def encode(self, moment: jax.Array, like: Any, bits: jax.Array, *, square: bool) -> Any:
        return self.codec.encode(moment, like, jnp.full_like(bits, 2**31), square=square)


@dataclasses.dataclass(frozen=True)
class Reset(Halfway):
    """The same, and every so many steps the state begins anew: Topollai & Choromanska (2026), arXiv 2603.16731."""

    every: int = 100


class Independent(OneStride):
    """Another codec, its thresholds hashed once more, so that those of an element are independent from step to step."""

    def encode(self, moment: jax.Array, like: Any, bits: jax.Array, *, square: bool) -> Any:
        return self.codec.encode(moment, like, _scramble(bits), square=square)


def _scramble(bits: jax.Array) -> jax.Array:
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 0x27D4EB2F), (15, 0x165667B1)):
        bits = (bits ^ (bits >> shift)) * np.uint32(factor)
    return bits ^ (bits >> 16)


def power(mu: float, nu: float, **kwargs: Any) -> Table:
    """`m = ±(q/127)^mu`, `v = (q/255)^nu`; linear is `power(1, 2)`, which is linear in m and in √v."""
    return _table(np.linspace(0, 1, 128) ** mu, np.linspace(0, 1, 256) ** nu, **kwargs)


def shifted(mu: tuple[float, float], nu: tuple[float, float], **kwargs: Any) -> Table:
    """Powers `((q + c) / (127 + c))^p` for q > 0, which keep their relative precision further down, and 0."""
    (p, c), (r, d) = mu, nu
    q, s = np.arange(128.0), np.arange(256.0)
    return _table(((q + c) / (127 + c)) ** p * (q > 0), ((s + d) / (255 + d)) ** r * (s > 0), **kwargs)


def logarithmic(octaves: float, **kwargs: Any) -> Table:
    """Magnitudes in equal ratios over so many powers of two of the gradient, and 0."""
    mu, nu = (np.r_[0, 2 ** np.linspace(-reach, 0, n - 1)] for reach, n in ((octaves, 128), (2 * octaves, 256)))
    return _table(mu, nu, **kwargs)


def dynamic_tree(**kwargs: Any) -> Table:
    """Dettmers (2016): seven decades, twice the codes in each as in the one below; bitsandbytes and torchao use it."""

    def decades(first: int) -> np.ndarray:
        edges = [np.linspace(0.1, 1, first * 2**i + 1) * 10.0 ** (i - 6) for i in range(7)]
        return np.concatenate([[0.0], *((e[1:] + e[:-1]) / 2 for e in edges)])

    mu, nu = decades(1), decades(2)
    return _table(np.r_[mu[:127], 1.0], np.r_[nu[:255], 1.0], **kwargs)


def softsign(**kwargs: Any) -> Table:
    """FlashOptim (2026), arXiv 2602.23349: `2m/(1+|m|)` and √v, linear."""
    q = np.linspace(0, 1, 128)
    return _table(q / (2 - q), np.linspace(0, 1, 256) ** 2, **kwargs)


def _table(mu: np.ndarray, nu: np.ndarray, **kwargs: Any) -> Table:
    assert (len(mu), len(nu)) == (128, 256)
    return Table(tuple(map(float, mu)), tuple(map(float, nu)), **kwargs)


linear = functools.partial(power, 1, 2)


def four_bits(**kwargs: Any) -> Table:
    """As torchao: of Dettmers' tree three decades for m, sixteenths of the largest for v, which is never 0."""
    decades = [np.linspace(0.1, 1, 2**i + 1) * 10.0 ** (i - 2) for i in range(3)]
    middles = np.concatenate([(e[1:] + e[:-1]) / 2 for e in decades])
    return Table((0.0, *map(float, middles), 1.0), (0.0, *np.linspace(0, 1, 17)[1:].tolist()), 128, **kwargs)
