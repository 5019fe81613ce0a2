from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from adamx.storage import Codec, Float, Int8, Quantized
from adamx.storage.codec import precision, shapes

STORED = Quantized(jnp.zeros((2, 8), jnp.int8), jnp.zeros((2, 1, 2)))


def test_shapes_and_precision_of_what_is_stored():
    tree = {"a": STORED, "b": jnp.zeros(3, jnp.bfloat16), "c": None}
    found = shapes(tree)
    assert (found["a"].shape, found["a"].dtype) == ((2, 8), jnp.float32)
    assert found["b"] is tree["b"]
    assert found["c"] is None
    assert precision(STORED) == jnp.float32
    assert precision(tree["b"]) == jnp.bfloat16


class Pair(NamedTuple):
    """A codec of one's own: a float32 number as two bfloat16 ones, to nearest."""

    dithered: bool = False
    seed: int = 0

    def zeros(self, like, dtype, *, square, where=""):
        return Quantized(jnp.zeros(jnp.shape(like), jnp.bfloat16), jnp.zeros(jnp.shape(like), jnp.bfloat16))

    def decode(self, stored, dtype):
        return stored.codes.astype(dtype) + stored.scales.astype(dtype)

    def encode(self, moment, like, bits, *, square):
        assert bits is None
        high = jax.lax.reduce_precision(moment, 8, 7)
        return Quantized(high.astype(jnp.bfloat16), (moment - high).astype(jnp.bfloat16))

    def largest(self, stored):
        return float(jnp.finfo(jnp.bfloat16).max)


@pytest.mark.slow
def test_a_codec_of_ones_own():
    codec: Codec = Pair()
    tx, exact = adamx.adam(0.1, mu_dtype=codec, nu_dtype=codec), adamx.adam(0.1)
    g = {"w": jnp.asarray([1.0, -0.3, 1e-3])}
    state, reference = tx.init(g), exact.init(g)
    assert type(state[0]) is adamx.MomentsState
    for _ in range(100):
        u, state = jax.jit(tx.update)(g, state)
        expected, reference = exact.update(g, reference)
    np.testing.assert_allclose(u["w"], expected["w"], rtol=1e-2)


def test_all_codecs_are_codecs():
    for codec in (Float(), Int8(min_size=4096)):
        for member in ("dithered", "seed", "zeros", "decode", "encode", "largest"):
            assert hasattr(codec, member)
