import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamx.storage.dither import (
    MOMENTS,
    PARAMETER,
    STRIDES,
    Walk,
    along,
    fraction,
    leaf_salt,
    lower_half,
    place,
    shard_offsets,
    thresholds,
    walks,
)

SALT = leaf_salt("encoder/kernel")
STEPS = [0, 1, 2, 89, 1000, 2**31, 2**32 - 1]
SHAPES = [(65536,), (256, 256), (16, 64, 64), (65536, 1)]


HALVES = {"whole": lambda bits: bits, "lower half": lower_half}
both_halves = pytest.mark.parametrize("half", HALVES)


@functools.partial(jax.jit, static_argnums=0)
def bits(shape, step, salt):
    return thresholds(shape, salt, step)


def drawn(shape, step, salt=SALT, half="whole"):
    return np.asarray(HALVES[half](bits(shape, np.uint32(step), salt))) / 2**32


def walked(n, half="whole"):
    """The thresholds of 256 elements in n steps."""
    steps = jnp.arange(n, dtype=jnp.uint32)
    return np.asarray(jax.vmap(lambda t: HALVES[half](thresholds((256,), SALT, t)))(steps)) / 2**32


def by_neighbour(x):
    """One row for each group of 16 elements that share a hash, or a column of elements that share none."""
    return x.reshape(-1, min(16, x.shape[-1]))


@both_halves
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_uniform_over_groups_at_every_step(shape, step, half):
    for u in by_neighbour(drawn(shape, step, half=half)).T:
        counts, _ = np.histogram(u, 64, (0, 1))
        expected = len(u) / 64
        assert ((counts - expected) ** 2 / expected).sum() < 130  # χ² with 63 degrees of freedom, 1 in 1,000,000


@both_halves
@pytest.mark.parametrize("step", STEPS)
def test_neighbours_lie_at_equal_distances(step, half):
    """All sixteen at step 0; later those which move by the same stride, four and four."""
    groups = by_neighbour(drawn((4096,), step, half=half))
    for width in (4, 16) if step == 0 else (4,):
        for start in range(16 // width):
            u = np.sort(groups[:, start :: 16 // width], axis=1)
            gaps = np.diff(u, axis=1, append=u[:, :1] + 1)
            np.testing.assert_allclose(gaps, 1 / width, atol=2e-3)


@both_halves
@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.999])
def test_of_sixteen_alike_as_many_round_up_as_their_fraction_says(share, half):
    up = np.stack([(by_neighbour(drawn((16384,), t, half=half)) < share).sum(1) for t in range(50)])
    assert np.abs(up - 16 * share).max() < 4
    assert abs(up.mean() - 16 * share) < 0.02
    independent = 16 * share * (1 - share)
    assert up.var() < 1.1 * independent
    if share in (0.3, 0.5):
        assert up.var() < 0.5 * independent


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_no_correlation_between_moments_leaves_seeds_groups_and_steps(shape):
    here = drawn(shape, 7)
    width = by_neighbour(here).shape[1]
    others = {
        "moment": drawn(shape, 7, half="lower half"),
        "moment later": drawn(shape, 8, half="lower half"),
        "parameter": drawn(shape, 7, leaf_salt("encoder/kernel", PARAMETER)),
        "leaf": drawn(shape, 7, leaf_salt("encoder/kernel2")),
        "seed": drawn(shape, 7, leaf_salt("encoder/kernel", MOMENTS, (1,))),
        **{f"neighbour in axis {axis}": np.roll(here, 1, axis) for axis in range(len(shape) - 1) if shape[axis] > 1},
        "next group": np.roll(here, width, -1) if shape[-1] > width else np.roll(here, 1, 0),
        "diagonal neighbour": np.roll(here, (1,) * (len(shape) - 1) + (width,), range(len(shape))),
    }
    for what, other in others.items():
        assert abs(np.corrcoef(here.ravel(), other.ravel())[0, 1]) < 4.5 / np.sqrt(here.size / width), what


def star_discrepancy(u):
    """The largest distance between the share of points below x and x, for each column."""
    u, n = np.sort(u, axis=0), len(u)
    rank = np.arange(1, n + 1)[:, None] / n
    return np.maximum(rank - u, u - rank + 1 / n).max(axis=0)


@pytest.mark.slow
@both_halves
@pytest.mark.parametrize("n", [100, 1000])
def test_low_discrepancy_over_steps(n, half):
    u = walked(n, half)
    independent = np.random.default_rng(0).random(u.shape)
    ours, theirs = star_discrepancy(u), star_discrepancy(independent)
    assert np.median(ours) < 2 * np.log(n) / n  # O(log n / n), where independent draws have O(1/√n)
    assert np.median(theirs) > 0.7 / np.sqrt(n)
    assert ours.max() < np.median(theirs)


def quotients(numerator, denominator, largest):
    """The entries of a fraction's continued fraction as long as the denominators that they lead to are small."""
    found, before, here = [], 0, 1
    while numerator and here <= largest:
        entry, rest = divmod(denominator, numerator)
        found.append(entry)
        before, here = here, entry * here + before
        numerator, denominator = rest, numerator
    return found


def test_a_step_moves_by_one_of_four_nearly_noble_numbers():
    for stride, begins in zip(STRIDES, ([1, 1, 1], [1, 2, 1], [1, 1, 2], [1, 2, 2]), strict=True):
        assert quotients(stride, 2**32, 12_000)[:3] == begins
        assert max(quotients(stride, 2**32, 12_000)) <= 3
        assert max(quotients(stride % 2**16, 2**16, 200)) <= 2
        assert stride % 2 == 1  # visits every threshold, and every lower half
    moved = thresholds((40000,), SALT, np.uint32(8)) - thresholds((40000,), SALT, np.uint32(7))
    found, counts = np.unique(moved, return_counts=True)
    assert set(found) == set(STRIDES)
    assert (counts == 10000).all()
    assert (by_neighbour(np.asarray(moved))[:, 4:] == by_neighbour(np.asarray(moved))[:, :-4]).all()


@both_halves
@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.999])
def test_the_accumulated_error_is_bounded_where_independent_bits_walk_away(share, half):
    """How often an element was below a fixed share, against how often it should have been."""
    n = 5000
    u = walked(n, half)
    error = np.cumsum(u < share, axis=0) - share * np.arange(1, n + 1)[:, None]
    assert np.abs(error).max() < 5
    assert abs(error[-1].mean()) < 0.25
    independent = np.cumsum(np.random.default_rng(0).random(u.shape) < share, axis=0)[-1] - share * n
    if n * share * (1 - share) > 25:  # else independent bits are off by less than 5 as well
        assert np.abs(independent).max() > 2 * np.abs(error).max()


def test_rows_of_a_billion_elements_share_no_hash():
    stride, groups = int(along(2)) // 16, 2**28
    rows = np.arange(1, 2**20, dtype=np.int64)
    apart = rows * stride % groups
    nearest = np.minimum.accumulate(np.minimum(apart, groups - apart))  # groups between any two of so many rows
    assert (16 * (rows + 1) * nearest).min() > 1e9
    assert all(int(along(axis)) % 32 == 16 for axis in range(2, 9))


def test_the_step_wraps():
    last, first = (thresholds((100,), SALT, np.uint32(t)) for t in (2**32 - 1, 0))
    stride = thresholds((100,), SALT, np.uint32(1)) - first
    np.testing.assert_array_equal(first - last, stride)


def test_the_same_bits_for_ever():
    """Resumed runs and other processors depend on these."""
    assert (SALT, leaf_salt("w", PARAMETER, (3,))) == (2323679536, 93196096)
    bits = thresholds((2, 3), SALT, np.uint32(5))
    np.testing.assert_array_equal(bits, [[3600945928, 3626367770, 3478622496], [1451307036, 1476728878, 1328983604]])


def test_a_shard_with_its_offset_has_the_thresholds_of_its_place():
    whole = thresholds((8, 6, 10), SALT, np.uint32(3))
    shard = jax.jit(lambda i: thresholds((4, 6, 5), SALT, np.uint32(3), (i, 0, 5)))(jnp.int32(4))
    np.testing.assert_array_equal(shard, whole[4:, :, 5:])


@pytest.mark.slow
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
    np.testing.assert_array_equal(fraction(jnp.asarray([0, 2**31, 2**32 - 1], jnp.uint32)), [0, 0.5, 1 - 2**-23])


def test_walks_tell_leaves_and_what_is_rounded_apart():
    tree = {"a": jnp.zeros(3), "b": (jnp.zeros(3), None)}
    found = walks(tree, jnp.int32(4), MOMENTS, (0, 5))
    assert found["a"].salt == leaf_salt("a", MOMENTS, (0, 5))
    assert found["b"][0].salt == leaf_salt("b/0", MOMENTS, (0, 5))
    assert found["a"].step.dtype == jnp.uint32
    parameter = walks(tree, 4, PARAMETER, (0,))["a"]
    assert len({found["a"].salt, parameter.salt, leaf_salt("a", MOMENTS, (5, 0)), leaf_salt("a", MOMENTS, (0,))}) == 4
    np.testing.assert_array_equal(parameter.thresholds((3,)), thresholds((3,), parameter.salt, np.uint32(4)))
    placed = walks({"a": jnp.zeros(3)}, 4, PARAMETER, (0,), {"a": (7,)})["a"]
    assert placed == Walk(parameter.salt, placed.step, (7,))


def test_compilers_do_not_know_the_salt():
    """Leaves of one shape then share their kernels; a salt that is known makes each a program of its own."""
    text = jax.jit(lambda step: thresholds((3, 16), SALT, step)).lower(np.uint32(1)).as_text()
    (name,) = re.findall(r"optimization_barrier (%\w+) : tensor<ui32>", text)
    assert f"{name} = stablehlo.constant dense<{SALT}> : tensor<ui32>" in text
    assert len(re.findall(rf"{name}\b", text)) == 2  # used once


def test_a_place_is_the_salt_moved_by_the_offset():
    whole, shard = thresholds((5, 7), SALT, np.uint32(3)), thresholds((2, 3), place(SALT, (2, 4)), np.uint32(3))
    np.testing.assert_array_equal(shard, whole[2:4, 4:7])
    assert place(SALT) == SALT


def test_shard_offsets_of_leaves_that_are_not_split():
    spec = jax.sharding.PartitionSpec()
    assert shard_offsets({"a": jnp.zeros((2, 3)), "b": jnp.zeros(())}, spec) == {"a": (0, 0), "b": ()}
    assert shard_offsets({"a": jnp.zeros((2, 3))}, {"a": spec}) == {"a": (0, 0)}
