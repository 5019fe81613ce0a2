"""Lines 7 and 8 on a leaf of which both moments are `Int8`, in the forms that XLA fuses on GPUs and TPUs.

The plain form averages a leaf and then looks at it in blocks. XLA:TPU moves the whole leaf to another layout for that,
and back, and XLA:GPU writes both averages to memory. Results are those of the plain form, up to how a compiler
contracts the sums.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from adamx.core.averages import Averages
from adamx.numerics import compute_dtype
from adamx.storage import Int8, blocks
from adamx.storage.codec import Quantized, is_quantized
from adamx.storage.dither import Thresholds
from adamx.storage.largest import ROUNDING, largest_two_at_once, largest_two_of_both
from adamx.storage.on_blocks import OnBlocks, View
from adamx.trees import staged

ROWS = 8
"""Rows of a tile of a TPU: once they are split off, blocks of 128 are seen without moving a number."""

SINCE = (0, 7)
"""Before this version of JAX `shard_map` does not know a choice by platform."""


def step(averages: Averages, g: Any, mu: Any, nu: Any, walk: Thresholds | None = None) -> tuple[Any, ...]:
    """`averages.step` in the form for the platform that the program is compiled for."""
    if not _takes(averages, g, mu, nu, walk):
        return averages.step(g, mu, nu, walk)
    on_gpu, on_tpu = (functools.partial(form, averages) for form in (_on_gpu, _on_tpu))
    return jax.lax.platform_dependent(g, mu, nu, walk, cuda=on_gpu, rocm=on_gpu, tpu=on_tpu, default=averages.step)


def _takes(averages: Averages, g: Any, mu: Any, nu: Any, walk: Thresholds | None) -> bool:
    """Whether both moments are float32 in blocks of one size, in a program that is recorded."""
    codecs = averages.mu_codec, averages.nu_codec
    if walk is None or not all(isinstance(codec, Int8) for codec in codecs):
        return False
    sizes = {codec.block_size for codec in codecs if isinstance(codec, Int8)}
    quantized = is_quantized(mu) and is_quantized(nu) and compute_dtype(jnp.result_type(g)) == jnp.float32
    return quantized and len(sizes) == 1 and not averages.dithers_sum and jax.__version_info__ >= SINCE and staged()


class Given(NamedTuple):
    """Thresholds that are there already; stands for `adamx.storage.dither.Walk`."""

    bits: jax.Array

    def thresholds(self, _: Any) -> jax.Array:
        """Themselves."""
        return self.bits


def _size(averages: Averages) -> int:
    assert isinstance(averages.mu_codec, Int8)
    return averages.mu_codec.block_size


def _checked(averages: Averages, g: Any, mu: Any, nu: Any) -> tuple[jax.Array, Quantized, Quantized]:
    """Arrays, and moments whose blocks are those of the codec."""
    for stored in (mu, nu):
        blocks.check_scales(stored.scales, stored.codes.shape, _size(averages))
    return jax.tree.map(jnp.asarray, (g, mu, nu))


def _seen(averages: Averages, found: Any = (None, None), view: View | None = None) -> Averages:
    """The averages of a leaf in blocks, see `OnBlocks`; `found` and `view` are its arguments."""
    codecs = averages.mu_codec, averages.nu_codec
    mu_codec, nu_codec = (OnBlocks(codec, view, largest) for codec, largest in zip(codecs, found, strict=True))
    return averages.replace(mu_codec=mu_codec, nu_codec=nu_codec)


def _on_tpu(averages: Averages, g: Any, mu: Any, nu: Any, walk: Thresholds) -> tuple[Any, ...]:
    """The plain form, but for codes and averages that are seen in blocks after the rows of a tile are split off.

    Where a row has several blocks, the numbers of both moments are found in one loop, which reads the gradient once.
    """
    g, mu, nu = _checked(averages, g, mu, nu)
    whole = g.ndim > 1 and g.shape[-2] % ROWS == 0 and not any(jax.typeof(g).sharding.spec[-2:])
    view = View(g.shape, _size(averages), ROWS if whole else 1)
    m, v, bits = _seen(averages, view=view).average(g, mu, nu, walk)
    found = None, None
    if blocks.count(g.shape, view.size) > 1:  # else XLA reads and writes less for one moment after the other
        found = largest_two_of_both((jnp.abs(view.split(m)), jnp.abs(view.split(v))), ROUNDING)
    return m, v, *_seen(averages, found, view).store(m, v, mu, nu, bits)


def _on_gpu(averages: Averages, g: Any, mu: Any, nu: Any, walk: Thresholds) -> tuple[Any, ...]:
    """The averages three times, as XLA:GPU else writes them to memory: for the blocks' numbers, the codes and u.

    What is computed for the numbers and for u becomes one kernel with what follows it, and the codes are another. The
    barriers keep the three apart, and let the compiler see that all read the same gradient and codes.
    """
    g, mu, nu = _checked(averages, g, mu, nu)
    count = blocks.count(g.shape, _size(averages))
    view = View(g.shape, blocks.size_of(g.shape[-1], count))  # a block longer than the last axis is not filled up
    in_blocks, bits = view.split(g), Given(view.split(walk.thresholds(g.shape)))

    def fresh(*before: Any) -> tuple[Any, Any]:
        scales, _ = jax.lax.optimization_barrier(((mu.scales, nu.scales), before))
        return view.split_all(mu._replace(scales=scales[0])), view.split_all(nu._replace(scales=scales[1]))

    m, v, _ = _seen(averages).average(in_blocks, *fresh(), bits)
    found = largest_two_at_once(jnp.abs(m), ROUNDING), largest_two_at_once(jnp.abs(v), ROUNDING)
    *_, new_mu, new_nu = _seen(averages, found).step(in_blocks, *fresh(found), bits)
    m, v, _ = _seen(averages).average(in_blocks, *fresh(jnp.zeros([])), bits)
    return view.merge(m), view.merge(v), view.merge_all(new_mu), view.merge_all(new_nu)
