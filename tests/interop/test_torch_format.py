import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.interop.torch_format import mu_product, numbers, second_to_jax, second_to_torch, steps, to_numpy


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


UNEQUAL = {"param_groups": [{"params": [0]}, {"params": [1, 2]}, {"params": [3]}]}


def test_several_groups_without_names_say_how_order_goes():
    words = (
        "in groups of 1 and 2 and 1: pass order=, the names of the first group, then those of the next, in the order"
    )
    with pytest.raises(ValueError, match=words):
        numbers(UNEQUAL, None)
    with pytest.raises(
        ValueError, match="each of the 4 parameters of torch's optimizer once, 1 and 2 and 1 in its 3 gr"
    ):
        numbers(UNEQUAL, ["a", "b"])
    half = {"param_groups": [{"params": [0], "param_names": ["x"]}, {"params": [1, 2]}]}
    with pytest.raises(ValueError, match="in groups of 1 and 2: pass order="):
        numbers(half, None)
    assert numbers(half, ["x", "y", "z"]) == {"x": 0, "y": 1, "z": 2}


def test_an_order_that_contradicts_the_state():
    named = {"param_groups": [{"params": [0], "param_names": ["x"]}, {"params": [1], "param_names": ["y"]}]}
    with pytest.raises(ValueError, match=r"order has \['y', 'x'\], torch's state says \['x', 'y'\].*Leave order out"):
        numbers(named, ["y", "x"])
    assert numbers(named, ["x", "y"]) == {"x": 0, "y": 1}


@pytest.mark.parametrize(
    ("field", "torch", "ours"), [("exp_avg_sq", 3 + 4j, 7), ("max_exp_avg_sq", 0.01j, 0.01), ("exp_inf", 3 + 4j, 5)]
)
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_second_moments_of_complex_parameters(field, torch, ours, dtype):
    v = second_to_jax(field, np.array([torch], dtype))
    assert v.dtype == np.zeros(0, dtype).real.dtype
    np.testing.assert_allclose(v, [ours], rtol=1e-6)
    back = second_to_torch(field, v, np.zeros(1, dtype))
    assert back.dtype == dtype
    assert back.real == back.imag
    np.testing.assert_allclose(second_to_jax(field, back), v, rtol=1e-6)
    assert second_to_torch(field, v, np.zeros(1)) is v
    assert second_to_jax(field, v) is v


def test_steps():
    assert steps({"a": {"step": 5}, "b": {"step": np.float32(5)}}) == 5
    assert steps({}) == 0


def test_the_product_of_momenta():
    group = {"betas": (0.9, 0.999), "momentum_decay": 0.004}
    factors = [0.9 * (1 - 0.5 * 0.96 ** (0.004 * i)) for i in range(1, 4)]
    assert mu_product(3, group) == pytest.approx(math.prod(factors), rel=1e-15)
    assert mu_product(0, group) == 1.0
    assert mu_product(10**5, group) < 1e-300


MAXIMUM = (adamx.scale_by_moments(), adamx.optimizers.running_max(corrected=False), adamx.bias_correction())
COMPLEX = {
    "Adam": adamx.adam(1e-3),
    "AMSGrad": optax.chain(*MAXIMUM, adamx.scale_by_lr(1e-3)),
    "Adamax": adamx.adamax(1e-3),
}
CLASSES = {"AMSGrad": "Adam"}


def complex_state(name):
    field = {"Adamax": "exp_inf"}.get(name, "exp_avg_sq")
    saved = {"step": np.float32(50), "exp_avg": np.array([0.1j, 1.0], np.complex64)}
    saved |= {field: np.array([0.01j, 3 + 4j], np.complex64)}
    saved |= {"max_exp_avg_sq": np.array([0.02j, 3 + 5j], np.complex64)} if name == "AMSGrad" else {}
    return {"state": {0: saved}, "param_groups": [{"params": [0], "param_names": ["w"]}]}


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_moments_both_ways(name):
    params, how = {"w": jnp.zeros(2, jnp.complex64)}, {"layout": adamx.interop.torch_layout}
    saved = complex_state(name)
    state = adamx.interop.from_torch(saved, {"w": "w"}, params, COMPLEX[name], **how)
    np.testing.assert_array_equal(state[0].mu["w"], saved["state"][0]["exp_avg"])
    np.testing.assert_allclose(state[0].nu["w"], [0.01, 5.0 if name == "Adamax" else 7.0], rtol=1e-6)
    if name == "AMSGrad":
        np.testing.assert_allclose(state[1].nu_max["w"], [0.02, 8.0], rtol=1e-6)
    kind = CLASSES.get(name, name)
    back = adamx.interop.to_torch(state, saved, {"w": "w"}, optimizer=kind, as_tensor=np.asarray, **how)
    assert {x.dtype.name for f, x in back["state"][0].items() if f != "step"} == {"complex64"}
    again = adamx.interop.from_torch(back, {"w": "w"}, params, COMPLEX[name], **how)
    for x, y in zip(jax.tree.leaves(again), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


@pytest.mark.torch
@pytest.mark.parametrize("name", COMPLEX)
def test_complex_moments_with_torch_itself(name):
    torch = pytest.importorskip("torch")
    w = torch.nn.Parameter(torch.tensor([1 + 1j, 2 - 1j], dtype=torch.complex64))
    kind = getattr(torch.optim, CLASSES.get(name, name))
    optimizer = kind([("w", w)], **({"amsgrad": True} if name == "AMSGrad" else {}))
    squares = 0.0
    for t in range(5):
        g = torch.tensor([t - 2.5j, 0.5 + 1j * t], dtype=torch.complex64)
        w.grad, squares = g, 0.999 * squares + 0.001 * np.abs(g.numpy()) ** 2
        optimizer.step()
    params, how = {"w": jnp.asarray(w.detach().numpy())}, {"layout": adamx.interop.torch_layout}
    state = adamx.interop.from_torch(optimizer.state_dict(), {"w": "w"}, params, COMPLEX[name], **how)
    if name != "Adamax":
        np.testing.assert_allclose(state[0].nu["w"], squares, rtol=1e-6)
    how |= {"optimizer": kind.__name__, "as_tensor": torch.from_numpy}
    optimizer.load_state_dict(adamx.interop.to_torch(state, optimizer.state_dict(), {"w": "w"}, **how))
    before = w.detach().clone()
    optimizer.step()
    assert not torch.equal(before, w.detach())
