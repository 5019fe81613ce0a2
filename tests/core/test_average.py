import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamx import numerics
from adamx.core.average import Average, of_parameters
from adamx.storage import Float, Int8
from adamx.storage.dither import AVERAGE, MOMENTS

SINGLE = Float(None, False)
PARAMS = {"a": jnp.zeros((4, 64)), "b": jnp.zeros(64)}


def of(decay, codec=SINGLE, precise=True, **arguments):
    return Average("decay", decay, codec, precise, **arguments)


def followed(average, decay, stream):
    """The average of a stream of arrays, in compute precision."""
    x = jnp.zeros(stream.shape[1:])

    def step(kept, row):
        t, x = row
        return average.step(decay, x, kept, None, *average.walks(x, t, None))[1], None

    clock = jnp.arange(1, len(stream) + 1)
    kept, _ = jax.jit(lambda: jax.lax.scan(step, average.zeros(x), (clock, stream)))()
    return np.asarray(average.codec.decode(kept, jnp.float32), np.float64)


def exact(decay, stream):
    a = np.zeros(stream.shape[1:])
    for x in np.asarray(stream, np.float64):
        a = decay * a + (1 - decay) * x
    return a


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("traced", [False, True])
def test_float32_is_the_formula(decay, traced):
    stream = jnp.asarray(1 + 0.1 * np.random.default_rng(0).standard_normal((50, 8)), jnp.float32)
    average = of(None if traced else decay)
    got = followed(average, jnp.float32(decay) if traced else decay, stream)
    # A traced d is rounded to float32, and 1-d by 2^-24 / (1-d) of itself.
    np.testing.assert_allclose(got, exact(decay, stream), rtol=2.0**-24 / (1 - decay) + 8 * 2.0**-23)


@pytest.mark.slow
@pytest.mark.parametrize("codec", [Float("bfloat16", True), Float("float16", True), Int8(32, 0)])
def test_stored_narrow_it_follows(codec):
    stream = jnp.full((3000, 64), 1.0)
    got = followed(of(0.999, codec), 0.999, stream)
    np.testing.assert_allclose(got.mean(), exact(0.999, stream).mean(), rtol=0.01)


def test_a_slow_sum_is_dithered():
    # A step adds 1e-7 of the average: less than half a unit in its last place.
    decay = 0.99999
    assert of(decay).dithers_sum
    assert of(None).dithers_sum
    assert not of(0.999).dithers_sum
    assert not of(decay, precise=False).dithers_sum
    stream = jnp.concatenate([jnp.full((1, 64), 1.0 / (1 - decay)), jnp.full((4000, 64), 1.003)])
    gained = followed(of(decay), decay, stream) - 1
    np.testing.assert_allclose(gained, 0.003 * (1 - decay**4000), rtol=0.02)
    undithered = followed(Plain("decay", decay, SINGLE, True), decay, stream) - 1
    assert (undithered < 0.5 * gained).all()


class Plain(Average):
    dithers_sum = False


def test_without_precision_it_is_the_plain_form_and_refuses_a_rate_of_1():
    a, x = jnp.float32(0.7), jnp.float32(0.3)
    got = jax.jit(lambda: of(0.9, precise=False).step(0.9, x, a, jnp.float32)[0])()
    np.testing.assert_array_equal(got, jax.jit(lambda: numerics.ema(0.9, a, x))())
    with pytest.raises(ValueError, match=r"decay=0\.99999999 is 1 in float32"):
        of(0.99999999, precise=False).step(0.99999999, x, a, jnp.float32)


def test_the_first_replaces_it():
    average, x = of(0.9), jnp.float32(3)
    for first, expected in ((True, 3.0), (False, 0.9 + 0.3)):
        got, kept = average.step(0.9, x, jnp.float32(1), None, None, jnp.bool_(first))
        np.testing.assert_allclose([got, kept], expected, rtol=1e-6)


def test_it_is_held_within_its_storage():
    huge = jnp.float32(3e38)
    assert of(0.5).step(0.0, huge, jnp.float32(0), None)[0] == numerics.bound_first_moment(huge, 3.4e38)
    weights = of(0.5, bounded=numerics.saturate_first_moment)
    np.testing.assert_allclose(weights.step(0.0, huge, jnp.float32(0), None)[0], 3e38, rtol=1e-6)
    assert jnp.isnan(weights.step(0.5, jnp.float32(jnp.inf), jnp.float32(0), None)[0])


def test_walks_where_something_is_dithered():
    assert of(0.9).walks(PARAMS, jnp.int32(1), None) == []
    narrow = Float("bfloat16", True)
    (moments,), (weights,) = (
        of(0.9, narrow, what=what).walks(PARAMS, jnp.int32(3), None) for what in (MOMENTS, AVERAGE)
    )
    assert moments["a"].salt != weights["a"].salt
    a, b = (np.asarray(walk["a"].thresholds((64, 64)) >> 8, np.float64).ravel() for walk in (moments, weights))
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.05
    assert int(weights["a"].step) == 3


def test_it_has_the_precision_of_what_it_averages(x64):
    for x, kept in ((jnp.float64(1), jnp.float64(0)), (1 + 1j, jnp.complex128(0)), (jnp.float32(1), jnp.float64(0))):
        got, stored = of(0.9).step(0.9, x, kept, None)
        assert got.dtype == stored.dtype == kept.dtype
        np.testing.assert_allclose(stored, 0.1 * np.asarray(x, stored.dtype), rtol=1e-15)


def test_what_stores_an_average_of_parameters_is_dithered():
    assert of_parameters(0.1, "bfloat16").codec.dithered
    assert of_parameters(0.1, "bfloat16").what == AVERAGE
    assert not of_parameters(0.1, None).codec.dithered
    with pytest.raises(ValueError, match="rounds to nearest, where an average of parameters stalls"):
        of_parameters(0.9, Float("bfloat16", stochastic=False))
