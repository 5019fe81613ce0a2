import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from adamx.interop import flax_kernels, torch_layout

PARAMS = {"fc": {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2, jnp.bfloat16)}}
NAMES = {"fc/kernel": "fc.weight", "fc/bias": "fc.bias"}
MODEL = {"fc.weight": np.arange(6.0).reshape(2, 3), "fc.bias": np.ones(2), "running_mean": np.ones(3)}


def test_there_and_back():
    params = adamx.interop.params_from_torch(MODEL, NAMES, PARAMS, layout=flax_kernels)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(lambda x: (x.shape, x.dtype), PARAMS)
    np.testing.assert_array_equal(params["fc"]["kernel"], MODEL["fc.weight"].T)
    model = adamx.interop.params_to_torch(params, MODEL, NAMES, layout=flax_kernels, as_tensor=np.asarray)
    assert model.keys() == MODEL.keys()
    assert model["fc.bias"].dtype == np.float32
    jax.tree.map(np.testing.assert_array_equal, model, MODEL)


def test_shapes_are_enough():
    shapes = jax.eval_shape(lambda: PARAMS)
    params = adamx.interop.params_from_torch(MODEL, NAMES, shapes, layout=flax_kernels)
    assert params["fc"]["bias"].dtype == jnp.bfloat16


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"no entry for fc/kernel; torch's parameters are fc.weight, fc.bias"):
        adamx.interop.params_from_torch(MODEL, {"fc/bias": "fc.bias"}, PARAMS, layout=flax_kernels)
    with pytest.raises(ValueError, match=r"for fc/kernel has shape \(2, 3\)"):
        adamx.interop.params_from_torch(MODEL, NAMES, PARAMS, layout={})
    with pytest.raises(ValueError, match="no entry for fc/kernel"):
        adamx.interop.params_to_torch(PARAMS, MODEL, {"fc/bias": "fc.bias"}, layout={}, as_tensor=np.asarray)


def test_what_torch_writes_in_place_later_does_not_show():
    for size in (64, 2**18):  # JAX takes memory of NumPy that begins at a multiple of 64 bytes as it is
        room = np.ones(size + 16, np.float32)
        bias = room[-room.ctypes.data % 64 // 4 :][:size]
        names = {"bias": "bias"}
        params = adamx.interop.params_from_torch({"bias": bias}, names, {"bias": jnp.zeros(size)}, layout=torch_layout)
        back = adamx.interop.params_to_torch(params, {"bias": bias}, names, layout=torch_layout, as_tensor=np.asarray)
        bias[:] = 2
        assert (params["bias"] == 1).all()
        back["bias"][:] = 3
        assert (params["bias"] == 1).all()
