import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamx.storage.largest import ROUNDING, largest_two, largest_two_at_once, largest_two_of_both

plain = jax.jit(functools.partial(largest_two, apart=ROUNDING))
at_once = jax.jit(lambda size: largest_two_at_once(size, ROUNDING))
of_both = jax.jit(lambda *sizes: largest_two_of_both(sizes, ROUNDING))


def neighbours(seed):
    """Blocks with many numbers a few units in the last place below the largest, around powers of two as well."""
    random = np.random.default_rng(seed)
    size = np.abs(random.standard_normal((64, 128)) * 10.0 ** random.integers(-30, 30)).astype(np.float32)
    most = size.max(axis=1, keepdims=True)
    most = np.where(random.random((64, 1)) < 0.5, np.exp2(np.floor(np.log2(most))).astype(np.float32), most)
    below = random.integers(0, random.integers(2, 80), size.shape, dtype=np.int32)
    close = (np.broadcast_to(most, size.shape).view(np.int32) - below).view(np.float32)
    return jnp.asarray(np.where(random.random(size.shape) < random.random(), close, size))


@pytest.mark.parametrize("seed", range(20))
def test_one_reduction_finds_what_two_find(seed):
    for expected, got in zip(plain(neighbours(seed)), at_once(neighbours(seed)), strict=True):
        np.testing.assert_array_equal(expected, got)


@pytest.mark.parametrize("seed", range(5))
def test_two_arrays_that_share_reductions_have_what_each_has_alone(seed):
    sizes = neighbours(seed), neighbours(seed + 100)
    for size, found in zip(sizes, of_both(*sizes), strict=True):
        for expected, got in zip(plain(size), found, strict=True):
            np.testing.assert_array_equal(expected, got)


def test_two_arrays_share_each_reduction():
    text = of_both.lower(*[neighbours(0)] * 2).as_text()
    assert text.count("stablehlo.reduce(") == 2


def test_blocks_of_one_number_zeros_and_infinity():
    rows = [[0.0] * 4, [1.0] * 4, [0.0, 2.0, 0.0, 0.0], [np.inf, 1.0, 3.0, np.inf], [np.inf] * 4]
    size = jnp.asarray(rows, jnp.float32)
    for expected, got in zip(plain(size), at_once(size), strict=True):
        np.testing.assert_array_equal(expected, got)


def test_nan_stays():
    size = jnp.asarray([[1.0, np.nan, np.inf, 0.0]])
    (top, _), (shared, _) = at_once(size), of_both(jnp.ones_like(size), size)[1]
    assert np.isnan(top).all()
    assert np.isnan(shared).all()


def test_derivatives_are_those_of_two_reductions():
    size = jnp.asarray([[1.0, 3.0, 2.0, 0.5]])
    for i in (0, 1):
        np.testing.assert_array_equal(
            *(jax.grad(lambda x, f=f, i=i: jnp.sum(f(x)[i]))(size) for f in (plain, at_once)), strict=True
        )
        np.testing.assert_array_equal(
            jax.grad(lambda x, i=i: jnp.sum(plain(x)[i]))(size),
            jax.grad(lambda x, i=i: jnp.sum(of_both(jnp.ones_like(x), x)[1][i]))(size),
        )
