import jax.numpy as jnp
import numpy as np
import pytest

from adamx.testing.report import LeafDifference, Report, same_bits, ulps


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16, np.float64])
def test_neighbours_are_one_ulp_apart(dtype):
    a = np.asarray([1.0, -1.0, 0.0], dtype)
    b = np.nextafter(a, np.asarray(2.0, dtype)) if dtype in (jnp.float32, np.float64, jnp.float16) else None
    if b is None:
        b = (a.view(np.int16) + np.asarray([1, -1, 1], np.int16)).view(dtype)
    np.testing.assert_array_equal(ulps(a, b), 1)
    assert not same_bits(a, b)


def test_ulps_across_zero_nan_and_infinity():
    tiny = np.float32(1e-45)
    a = np.asarray([-tiny, 0.0, np.nan, np.nan, np.inf], np.float32)
    b = np.asarray([tiny, -0.0, np.nan, 1.0, np.finfo(np.float32).max], np.float32)
    np.testing.assert_array_equal(ulps(a, b), [2, 0, 0, np.inf, 1])


def test_ulps_of_integers_and_complex_numbers():
    assert ulps(np.asarray(3), np.asarray(5)) == 2
    z = np.asarray([1 + 1j], np.complex64)
    assert ulps(z, z + np.complex64(1j * 2**-23)) == 1


def test_same_bits_tells_zeros_apart_and_nans_not():
    assert not same_bits(np.float32([0.0]), np.float32([-0.0]))
    assert same_bits(np.float32([np.nan]), -np.float32([np.nan]))
    assert not same_bits(np.float32([1]), np.float64([1]))
    assert same_bits(np.zeros((0, 3)), np.zeros((0, 3)))


def test_a_report_tells_where_and_how_far():
    same, other = LeafDifference("update", "['a']"), LeafDifference("state", "['b']")
    for step in range(3):
        same.add(np.float32([1.0]), np.float32([1.0]))
        other.add(np.float32([1.0 + 2.0**-23 * step]), np.float32([1.0]))
    report = Report(("x", "y"), [same, other], {"x": [], "y": ["['c']"]})
    assert report.first_divergence == (2, "state", "['b']")
    assert report.max_ulps == 2
    np.testing.assert_allclose(report.max_relative, 2 * 2.0**-23)
    text = str(report)
    assert "x against y, 3 steps: first difference at step 2: state ['b']" in text
    assert "only in y: ['c']" in text
    assert text.count("\n") == 4


def test_different_types_and_shapes_are_infinitely_far():
    leaf = LeafDifference("update", "")
    leaf.add(np.float32([1.0]), np.asarray([1.0], jnp.bfloat16))
    leaf.add(np.float32([1.0]), np.float32([1.0, 2.0]))
    assert leaf.ulps == [np.inf, np.inf]
    assert leaf.first == 1
    assert leaf.kind == "float32[1] / float32[2]"
