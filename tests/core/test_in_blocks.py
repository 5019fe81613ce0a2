import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from adamx.core import in_blocks
from adamx.core.averages import averages_of, of_squares
from adamx.storage import Int8
from adamx.storage.dither import Walk
from tests.backends import ulps

SHAPES = [(16, 256), (3, 8, 128), (5, 40), (300,), (2, 24, 200)]
FORMS = {"GPU": in_blocks._on_gpu, "TPU": in_blocks._on_tpu}


def averages(size=128, **hyper):
    codec = Int8(size, 0)
    return averages_of(of_squares, 0.9, 0.999, codec, codec, hyper.get("precise", False))


def before(shape, size=128):
    random = np.random.default_rng(len(shape))
    g = jnp.asarray(random.standard_normal(shape) * np.exp(random.standard_normal(shape)), jnp.float32)
    codec = Int8(size, 0)
    return g, codec.zeros(g, g.dtype, square=False), codec.zeros(g, g.dtype, square=True)


def stepped(form, averages, shape, size=128, steps=3):
    """Averages and moments after a few steps of one gradient."""
    g, mu, nu = before(shape, size)
    step = jax.jit(lambda g, mu, nu, count: form(averages, g, mu, nu, Walk(np.uint32(48), count)))
    m, v = g, g
    for count in range(1, steps + 1):
        m, v, mu, nu = step(g * count, mu, nu, jnp.uint32(count))
    return m, v, mu, nu


@pytest.mark.slow
@pytest.mark.parametrize("size", [16, 128])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_forms_give_what_the_plain_form_gives(form, shape, size):
    given = averages(size)
    expected = stepped(type(given).step, given, shape, size)
    got = stepped(FORMS[form], given, shape, size)
    assert jax.tree.map(jax.typeof, got) == jax.tree.map(jax.typeof, expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        if jnp.issubdtype(a.dtype, jnp.floating):
            assert ulps(a, b, np.abs(b).max()) <= 2
        else:  # where compilers contract sums otherwise, a code in 10^5 may be its neighbour
            assert np.abs(np.asarray(a, int) - np.asarray(b, int)).max(initial=0) <= 1
            assert np.mean(np.asarray(a) != np.asarray(b)) < 1e-3


def lowered(platform, shape=(16, 256), **around):
    codec = Int8(128, 0)
    tx = adamx.adam(1e-3, mu_dtype=codec, nu_dtype=codec, **around)
    params = jnp.zeros(shape)
    step = jax.jit(lambda state, g: tx.update(g, state)).trace(tx.init(params), params)
    return step.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.skipif(jax.__version_info__ < in_blocks.SINCE, reason="the plain form on every platform")
def test_each_platform_gets_its_form():
    cpu, cuda, tpu = (lowered(platform) for platform in ("cpu", "cuda", "tpu"))
    assert "popcnt" not in cpu
    assert "popcnt" in cuda
    assert "popcnt" not in tpu
    assert "2x2x8x128" in tpu


@pytest.mark.skipif(jax.__version_info__ < in_blocks.SINCE, reason="the plain form on every platform")
def test_gpus_fill_up_no_block_that_is_longer_than_the_last_axis():
    text = lowered("cuda", shape=(16, 64))
    assert "16x1x64x" in text
    assert "16x1x128x" not in text


@pytest.mark.parametrize("other", ["op by op", "a long average", "two block sizes", "float64"])
def test_what_the_forms_do_not_take_is_plain(other, x64):
    codecs = Int8(128, 0), Int8(256 if other == "two block sizes" else 128, 0)
    precise = other == "a long average"
    given = averages_of(of_squares, 0.9, 0.99999 if precise else 0.999, *codecs, precise)
    g = jnp.ones((16, 256), jnp.float64 if other == "float64" else jnp.float32)
    mu, nu = (codec.zeros(g, g.dtype, square=square) for codec, square in zip(codecs, (False, True), strict=True))
    walk = Walk(np.uint32(48), jnp.uint32(1))
    if other == "op by op":
        assert not in_blocks._takes(given, g, mu, nu, walk)
    else:
        step = jax.make_jaxpr(lambda g: in_blocks.step(given, g, mu, nu, walk))(g)
        assert "platform_index" not in str(step)


def test_wrong_blocks_are_refused():
    g, mu, nu = before((16, 256), 64)
    with pytest.raises(ValueError, match="in blocks of 128"):
        jax.jit(lambda g: in_blocks.step(averages(128), g, mu, nu, Walk(np.uint32(48), jnp.uint32(1))))(g)
