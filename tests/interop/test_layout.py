import numpy as np
import pytest

from adamx.interop import flax_kernels, torch_layout
from adamx.interop.layout import to_jax, to_torch_axes, torch_name


@pytest.mark.parametrize(
    ("path", "torch", "jax"),
    [
        ("dense/kernel", (2, 3), (3, 2)),
        ("conv/kernel", (2, 3, 4), (4, 3, 2)),
        ("conv/kernel", (2, 3, 4, 5), (4, 5, 3, 2)),
        ("conv/kernel", (2, 3, 4, 5, 6), (4, 5, 6, 3, 2)),
        ("kernel", (2, 3), (3, 2)),
        ("dense/bias", (2,), (2,)),
        ("kernel/embedding", (2, 3), (2, 3)),
    ],
)
def test_flax_kernels_there_and_back(path, torch, jax):
    x = np.arange(np.prod(torch)).reshape(torch)
    moved = to_jax(flax_kernels, path, x, jax)
    back = to_torch_axes(flax_kernels, path, moved)
    np.testing.assert_array_equal(back, x)
    assert back.flags.c_contiguous
    assert back.flags.writeable


def test_a_kernel_of_a_convolution_is_hwio():
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5))  # OIHW
    assert to_jax(flax_kernels, "kernel", x, (4, 5, 3, 2))[1, 2, 0, 1] == x[1, 0, 1, 2]


def test_a_permutation_by_path():
    x = np.arange(24).reshape(2, 3, 4)
    layout = {"a": (1, 2, 0)}
    moved = to_jax(layout, "a", x, (3, 4, 2))
    assert moved[1, 2, 0] == x[0, 1, 2]
    np.testing.assert_array_equal(to_torch_axes(layout, "a", moved), x)
    np.testing.assert_array_equal(to_jax(layout, "b", x, x.shape), x)
    np.testing.assert_array_equal(to_jax(torch_layout, "kernel", x, x.shape), x)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"for a/w has shape \(2, 3\), \(2, 3\) in .* parameter has \(3, 2\): .*a/w"):
        to_jax(torch_layout, "a/w", np.ones((2, 3)), (3, 2))


@pytest.mark.parametrize("wrong", [(0,), (0, 0), (1, 2), (0, 1, 2)])
def test_what_is_no_permutation(wrong):
    with pytest.raises(ValueError, match=r"layout of w: expected a permutation of 2 axes, got"):
        to_jax({"w": wrong}, "w", np.ones((2, 3)), (2, 3))


def test_names():
    known = ["fc.weight", "fc.bias"]
    assert torch_name({"a": "fc.weight"}, "a", known) == "fc.weight"
    assert torch_name(lambda path: path.replace("/", "."), "fc/bias", known) == "fc.bias"
    with pytest.raises(ValueError, match=r"no entry for b; torch's parameters are fc.weight, fc.bias"):
        torch_name({"a": "fc.weight"}, "b", known)
    with pytest.raises(ValueError, match=r"'fc.kernel', for a, is not among torch's"):
        torch_name({"a": "fc.kernel"}, "a", known)
