import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamx.storage.dither import STRIDES, Walk, fraction, leaf_salt, shard_offsets, thresholds, walks

SALT = leaf_salt("encoder/kernel", 0)
STEPS = [0, 1, 2, 89, 1000, 2**31, 2**32 - 1]
SHAPES = [(65536,), (256, 256), (16, 64, 64), (65536, 1)]


@functools.partial(jax.jit, static_argnums=0)
def bits(shape, step, salt):
    return thresholds(shape, salt, step)


def drawn(shape, step, salt=SALT):
    return np.asarray(bits(shape, np.uint32(step), salt)) / 2**32


def walked(n):
    """The thresholds of 256 elements in n steps."""
    return np.asarray(jax.vmap(lambda t: thresholds((256,), SALT, t))(jnp.arange(n, dtype=jnp.uint32))) / 2**32


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_uniform_over_elements_at_every_step(shape, step):
    counts, _ = np.histogram(drawn(shape, step), 64, (0, 1))
    expected = np.prod(shape) / 64
    assert ((counts - expected) ** 2 / expected).sum() < 115  # χ² with 63 degrees of freedom, 1 in 10,000


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_no_correlation_between_moments_leaves_seeds_neighbours_and_steps(shape):
    here = drawn(shape, 7)
    others = {
        "moment": drawn(shape, 7, leaf_salt("encoder/kernel", 1)),
        "leaf": drawn(shape, 7, leaf_salt("encoder/kernel2", 0)),
        "seed": drawn(shape, 7, leaf_salt("encoder/kernel", 0, seed=1)),
        **{f"neighbour in axis {axis}": np.roll(here, 1, axis) for axis in range(len(shape)) if shape[axis] > 1},
        "diagonal neighbour": np.roll(here, (1,) * len(shape), range(len(shape))),
    }
    for what, other in others.items():
        assert abs(np.corrcoef(here.ravel(), other.ravel())[0, 1]) < 4.5 / np.sqrt(here.size), what


def star_discrepancy(u):
    """The largest distance between the share of points below x and x, for each column."""
    u, n = np.sort(u, axis=0), len(u)
    rank = np.arange(1, n + 1)[:, None] / n
    return np.maximum(rank - u, u - rank + 1 / n).max(axis=0)


@pytest.mark.parametrize("n", [100, 1000])
def test_low_discrepancy_over_steps(n):
    u = walked(n)
    independent = np.random.default_rng(0).random(u.shape)
    ours, theirs = star_discrepancy(u), star_discrepancy(independent)
    assert np.median(ours) < 2 * np.log(n) / n  # O(log n / n), where independent draws have O(1/√n)
    assert np.median(theirs) > 0.7 / np.sqrt(n)
    assert ours.max() < np.median(theirs)


def test_a_step_moves_by_one_of_four_noble_numbers():
    for stride, fraction_begins in zip(STRIDES, ([], [1, 2], [1, 1, 2], [1, 2, 2]), strict=True):
        value = (1 + 5**0.5) / 2
        for quotient in reversed(fraction_begins or [1]):
            value = quotient + 1 / value
        assert abs(stride / 2**32 - 1 / value) < 2**-32
        assert stride % 2 == 1  # visits every threshold
    moved = thresholds((40000,), SALT, np.uint32(8)) - thresholds((40000,), SALT, np.uint32(7))
    found, counts = np.unique(moved, return_counts=True)
    assert set(found) == set(STRIDES)
    assert np.abs(counts - 10000).max() < 400


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.999])
def test_the_accumulated_error_is_bounded_where_independent_bits_walk_away(share):
    """How often an element was below a fixed share, against how often it should have been."""
    n = 5000
    u = walked(n)
    error = np.cumsum(u < share, axis=0) - share * np.arange(1, n + 1)[:, None]
    assert np.abs(error).max() < 5
    assert abs(error[-1].mean()) < 0.25
    independent = np.cumsum(np.random.default_rng(0).random(u.shape) < share, axis=0)[-1] - share * n
    assert np.abs(independent).max() > 2 * np.abs(error).max()


def test_the_step_wraps():
    last, first = (thresholds((100,), SALT, np.uint32(t)) for t in (2**32 - 1, 0))
    stride = thresholds((100,), SALT, np.uint32(1)) - first
    np.testing.assert_array_equal(first - last, stride)


def test_the_same_bits_for_ever():
    """Resumed runs and other processors depend on these."""
    assert (SALT, leaf_salt("w", 1, seed=3)) == (2323679541, 1446674316)
    bits = thresholds((2, 3), SALT, np.uint32(5))
    np.testing.assert_array_equal(bits, [[3429244544, 1470657781, 736263496], [786368880, 2914659564, 623166429]])


def test_a_shard_with_its_offset_has_the_thresholds_of_its_place():
    whole = thresholds((8, 6, 10), SALT, np.uint32(3))
    shard = jax.jit(lambda i: thresholds((4, 6, 5), SALT, np.uint32(3), (i, 0, 5)))(jnp.int32(4))
    np.testing.assert_array_equal(shard, whole[4:, :, 5:])


def test_the_same_under_jit_vmap_and_scan():
    expected = thresholds((3, 4), SALT, np.uint32(9))
    np.testing.assert_array_equal(jax.jit(lambda t: thresholds((3, 4), SALT, t))(np.uint32(9)), expected)
    np.testing.assert_array_equal(
        jax.vmap(lambda t: thresholds((3, 4), SALT, t))(jnp.arange(10, dtype="uint32"))[9], expected
    )
    scanned = jax.lax.scan(lambda t, _: (t + 1, thresholds((3, 4), SALT, t)), jnp.uint32(0), length=10)[1][9]
    np.testing.assert_array_equal(scanned, expected)


def test_integer_arithmetic_only():
    program = str(jax.make_jaxpr(lambda t: thresholds((3, 4), SALT, t))(np.uint32(9)))
    assert "f32" not in program
    assert "f64" not in program


def test_fraction_is_in_the_half_open_interval():
    np.testing.assert_array_equal(fraction(jnp.asarray([0, 2**31, 2**32 - 1], jnp.uint32)), [0, 0.5, 1 - 2**-24])


def test_walks_tell_leaves_and_moments_apart():
    tree = {"a": jnp.zeros(3), "b": (jnp.zeros(3), None)}
    found = walks(tree, jnp.int32(4), (0, 5))
    assert found["a"].salts == (leaf_salt("a", 0, 0), leaf_salt("a", 1, 5))
    assert found["b"][0].salts == (leaf_salt("b/0", 0, 0), leaf_salt("b/0", 1, 5))
    assert found["a"].step.dtype == jnp.uint32
    parameter = walks(tree, 4, (0,), first=2)["a"]
    assert parameter.salts == (leaf_salt("a", 2),)
    np.testing.assert_array_equal(parameter.thresholds((3,), 0), thresholds((3,), leaf_salt("a", 2), np.uint32(4)))
    placed = walks({"a": jnp.zeros(3)}, 4, (0,), {"a": (7,)})["a"]
    assert placed == Walk(placed.salts, placed.step, (7,))


def test_shard_offsets_of_leaves_that_are_not_split():
    spec = jax.sharding.PartitionSpec()
    assert shard_offsets({"a": jnp.zeros((2, 3)), "b": jnp.zeros(())}, spec) == {"a": (0, 0), "b": ()}
    assert shard_offsets({"a": jnp.zeros((2, 3))}, {"a": spec}) == {"a": (0, 0)}
