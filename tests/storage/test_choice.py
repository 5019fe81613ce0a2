import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from adamx.storage import Float, Int8
from adamx.storage.choice import codec_of, decode, moment_codec, moment_codecs


@pytest.mark.parametrize(
    ("dtype", "decay", "stochastic"),
    [
        (None, 0.999, False),
        ("float32", 0.999999, False),
        ("bfloat16", 0.9, False),
        ("bfloat16", 0.95, True),
        ("bfloat16", 0.999, True),
        ("bfloat16", np.float32(0.999), True),
        ("bfloat16", jnp.float32(0.9), True),
        ("float16", 0.9, False),
        ("float16", 0.999, True),
        ("float8_e4m3fn", 0.5, True),
        ("float8_e5m2", 0.5, True),
    ],
)
def test_a_bare_dtype_is_dithered_where_nearest_would_not_track(dtype, decay, stochastic):
    codec = moment_codec("nu_dtype", dtype, decay)
    assert codec == Float(dtype and jnp.dtype(dtype), stochastic)
    assert codec.dithered == stochastic


def test_a_traced_decay_is_dithered():
    found = []
    jax.eval_shape(lambda b: found.append(moment_codec("nu_dtype", "bfloat16", b).dithered), jnp.float32(0.5))
    assert found == [True]


def test_said_explicitly():
    assert not moment_codec("nu_dtype", Float("bfloat16", stochastic=False), 0.99).dithered
    assert moment_codec("mu_dtype", Float("bfloat16", stochastic=True, seed=3), 0.9) == Float(
        jnp.dtype("bfloat16"), True, 3
    )
    assert moment_codec("mu_dtype", Float("bfloat16"), 0.9) == Float(jnp.dtype("bfloat16"), False)
    assert moment_codec("mu_dtype", Int8(64), 0.9) == Int8(64)


def test_m_is_dithered_where_v_is_unless_told_otherwise():
    def dithered(mu, nu):
        return tuple(codec.dithered for codec in moment_codecs(mu, nu, 0.9, 0.999))

    assert dithered("bfloat16", None) == (False, False)
    assert dithered("bfloat16", "bfloat16") == (True, True)
    assert dithered("bfloat16", Int8()) == (True, True)
    assert dithered(Float("bfloat16", stochastic=False), "bfloat16") == (False, True)
    assert dithered(None, "bfloat16") == (False, True)


@pytest.mark.parametrize("value", [int, "int16", "nonsense", 3, bool, Float("int32"), Float(3)])
def test_the_argument_is_named(value):
    with pytest.raises(TypeError, match=r"^nu_dtype must be a (real )?floating dtype or None, got "):
        moment_codec("nu_dtype", value, 0.999)


@pytest.mark.parametrize("value", [Int8, Float])
def test_a_class_is_told_to_be_called(value):
    with pytest.raises(TypeError, match=f"mu_dtype must be a dtype or a codec, got the class .*{value.__name__}\\(\\)"):
        moment_codec("mu_dtype", value, 0.9)


@pytest.mark.parametrize("value", ["int8", jnp.int8, np.uint8, Float("int8")])
def test_8_bit_integers_are_told_of_their_codec(value):
    with pytest.raises(TypeError, match=r"mu_dtype must be .*got u?int8: .* pass mu_dtype=adamx\.storage\.Int8\(\)$"):
        moment_codec("mu_dtype", value, 0.9)


def test_a_dtype_without_zero_is_refused():
    with pytest.raises(TypeError, match="nu_dtype is float8_e8m0fnu, which holds no 0: a moment begins at 0"):
        moment_codec("nu_dtype", "float8_e8m0fnu", 0.999)


@pytest.mark.parametrize(("given", "real"), [("complex64", "float32"), (np.complex64, "float32"), (complex, "float64")])
def test_a_complex_dtype_of_m_stands_for_the_real_one_of_its_width(given, real, x64):
    assert moment_codec("mu_dtype", given, 0.9) == moment_codec("mu_dtype", real, 0.9)
    params = {"complex": jnp.zeros(3, given), "real": jnp.zeros(3)}
    state = adamx.scale_by_adam(mu_dtype=given).init(params)
    assert (state.mu["complex"].dtype, state.mu["real"].dtype) == (jnp.dtype(given), jnp.dtype(real))
    with pytest.raises(TypeError, match=r"nu_dtype is complex\d+, but v is real"):
        adamx.scale_by_adam(nu_dtype=given)


def test_complex128_needs_x64():
    with pytest.raises(ValueError, match="mu_dtype is complex128, but JAX holds complex64 here: set jax_enable_x64"):
        moment_codec("mu_dtype", "complex128", 0.9)


def test_another_codec_is_refused():
    with pytest.raises(TypeError, match=r"moment at 0/mu/w cannot be carried: int32 is not of a codec of adamx"):
        decode("0/mu/w", jnp.ones(2, jnp.int32))


@pytest.mark.parametrize("codec", [Float(None), Float("bfloat16"), Float("float16"), Int8(32, 0)])
def test_what_is_stored_tells_its_codec(codec):
    stored = codec.zeros(jnp.ones((3, 64)), jnp.float32, square=False)
    found = codec_of("w", stored)
    assert type(found) is type(codec)
    assert getattr(found, "block_size", 32) == 32
