import jax.numpy as jnp
import pytest

from adamx.storage import Int4, Int8
from adamx.storage.codec import Quantized


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("codec", [Int8(min_size=0), Int4(min_size=0)], ids=["Int8", "Int4"])
def test_a_moment_is_two_arrays_of_its_types(codec, square):
    stored = codec.zeros(jnp.zeros((3, 200)), jnp.float32, square=square)
    assert isinstance(stored, Quantized)
    assert stored.apart
    assert (stored.codes.shape, stored.scales.shape) == ((3, 200), (3, 2, 2))
    assert (stored.codes.dtype, stored.scales.dtype) == codec.types(square)


@pytest.mark.parametrize("codec", [Int8, Int4])
def test_by_default_small_leaves_stay_float32(codec):
    for rows, quantized in ((511, False), (512, True)):
        stored = codec().zeros(jnp.zeros((rows, 128)), jnp.float32, square=True)
        assert isinstance(stored, Quantized) is quantized
