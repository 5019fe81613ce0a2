import math

import numpy as np
import pytest

from adamx.interop.torch_format import mu_product, numbers, steps, to_numpy


class Tensor:
    """What `to_numpy` asks of a tensor of torch."""

    def __init__(self, values, dtype):
        self.values, self.dtype = values, dtype

    def detach(self):
        return self

    def cpu(self):
        return self

    def float(self):
        return Tensor(self.values, "torch.float32")

    def numpy(self):
        if self.dtype == "torch.bfloat16":
            raise TypeError("Got unsupported ScalarType BFloat16")
        return np.asarray(self.values, self.dtype.removeprefix("torch."))


@pytest.mark.parametrize(("dtype", "found"), [("float64", "float64"), ("float16", "float16"), ("bfloat16", "float32")])
def test_tensors(dtype, found):
    array = to_numpy(Tensor([1.5, 2.0], f"torch.{dtype}"))
    assert array.dtype == found
    np.testing.assert_array_equal(array, [1.5, 2.0])


def test_groups_are_numbered_in_their_order():
    state = {"param_groups": [{"params": [0, 2]}, {"params": [1]}]}
    assert numbers(state, ["a", "b", "c"]) == {"a": 0, "b": 2, "c": 1}
    named = {"param_groups": [{"params": [0], "param_names": ["x"]}, {"params": [1], "param_names": ["y"]}]}
    assert numbers(named, None) == {"x": 0, "y": 1}
    assert numbers(named, ["p", "q"]) == {"p": 0, "q": 1}


@pytest.mark.parametrize("order", [["a", "a", "b"], ["a", "b"], []])
def test_names_must_be_as_many_as_parameters(order):
    with pytest.raises(ValueError, match=r"order must name each of the 3|pass order="):
        numbers({"param_groups": [{"params": [0, 1, 2]}]}, order)


def test_steps():
    assert steps({"a": {"step": 5}, "b": {"step": np.float32(5)}}) == 5
    assert steps({}) == 0


def test_the_product_of_momenta():
    group = {"betas": (0.9, 0.999), "momentum_decay": 0.004}
    factors = [0.9 * (1 - 0.5 * 0.96 ** (0.004 * i)) for i in range(1, 4)]
    assert mu_product(3, group) == pytest.approx(math.prod(factors), rel=1e-15)
    assert mu_product(0, group) == 1.0
    assert mu_product(10**5, group) < 1e-300
