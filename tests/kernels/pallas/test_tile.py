import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from adamx.core.averages import averages_of, of_squares
from adamx.core.leaf import MASTER, PLAIN, STOCHASTIC, Leaf, Rule
from adamx.core.work import CAUTIOUSLY, EVERYWHERE
from adamx.kernels.pallas.tile import step_tile
from adamx.kernels.pallas.view import places, view_of
from adamx.storage import Float, Int8, Quantized
from adamx.storage.dither import MOMENTS, PARAMETER, leaf_salt, thresholds
from adamx.storage.on_blocks import InBlocks
from adamx.storage.rounding import sum_to_bfloat16
from adamx.storage.split import join
from tests.backends import differing, ulps

SHAPE = (16, 128)
WHERE = places(view_of(SHAPE, 128, "cuda"), [jnp.int32(0)] * 3)
CODED, HALF = Int8(128, 0), Float("bfloat16", stochastic=True)
CODECS = {
    "int8": (CODED, CODED),
    "bfloat16": (HALF, HALF),
    "float32 m": (Float(), CODED),
    "int8 v": (HALF, CODED),
    "nearest": (Float("bfloat16", stochastic=False), Float("bfloat16", stochastic=False)),
}
SALTS = [jnp.uint32(leaf_salt("the tree itself", *of)) for of in ((MOMENTS, (0, 0)), (PARAMETER, (0,)))]


def normal(seed, dtype="float32"):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(SHAPE), "bfloat16").astype(dtype)


@functools.partial(jax.jit, static_argnames=("codecs", "weights", "known", "decays"))
def stepped(codecs, leaf, count, *, b1=0.5, b2=0.5, weights=PLAIN, known=(False, False), decay=0.0, decays=EVERYWHERE):
    nesterov, precise = known
    given = [1 - b1**count, 1 - b2**count, 1 - b1 ** (count + 1)]
    numbers = jnp.asarray([b1, 1 - b1, b2, 1 - b2, *given, 1e-8, 0.0, 1.0], jnp.float32)
    averages = averages_of(of_squares, 0.5, 0.5, None, None, precise).replace(mu_codec=codecs[0], nu_codec=codecs[1])
    averages = averages if precise else averages.replace(b1=None, b2=None)
    rule, counts = Rule(averages, None, nesterov, weights), (jnp.uint32(count), jnp.uint32(count))
    scalars = (numbers, counts, [*SALTS, jnp.uint32(1)], (jnp.float32(-0.125), -0.125 * decay))
    return of_leaf(step_tile(rule, decays, scalars, WHERE, of_tile(leaf)))


def of_tile(leaf):
    """A leaf whose moments are seen in blocks, the two numbers of a block in columns of their own."""
    moments = [
        InBlocks(x.codes, x.scales[..., 0], x.scales[..., 1]) if isinstance(x, Quantized) else x for x in leaf[3:5]
    ]
    return leaf._replace(mu=moments[0], nu=moments[1])


def of_leaf(tile):
    moments = [Quantized(x.codes, jnp.stack([x.scale, x.top], -1)) if isinstance(x, InBlocks) else x for x in tile[3:5]]
    return tile._replace(mu=moments[0], nu=moments[1])


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["adam", "nesterov", "precise", "decay"])
@pytest.mark.parametrize("codecs", CODECS)
def test_a_tile_steps_as_the_composed_stages_do(codecs, rule):
    mu, nu = CODECS[codecs]
    nesterov, precise, decay = rule == "nesterov", rule == "precise", 0.5 * (rule == "decay")
    last = {"mu_dtype": mu, "nu_dtype": nu, "nesterov": nesterov, "precise": precise}
    tx = adamx.adamw(0.125, 0.5, 0.5, weight_decay=decay, **last)
    p, state, update = normal(0), tx.init(normal(0)), jax.jit(tx.update)
    for t in range(1, 4):
        leaf = Leaf(normal(t), p, None, state[0].mu, state[0].nu)
        got = stepped((mu, nu), leaf, t, known=(nesterov, precise), decay=decay)
        updates, state = update(normal(t), state, p)
        assert differing((got.mu, got.nu), (state[0].mu, state[0].nu)) == []
        assert ulps(got.param, p + updates, jnp.abs(p) + 0.5) <= 2
        p = p + updates


def half(weights, remainder=None):
    zeros = [CODED.zeros(normal(0), jnp.float32, square=square) for square in (False, True)]
    leaf = Leaf(normal(1, "bfloat16"), normal(0, "bfloat16"), remainder, *zeros)
    return leaf, stepped((CODED, CODED), leaf, 1, weights=weights)


def whole():
    """The float32 weights of the same step."""
    leaf, _ = half(PLAIN)
    return stepped((CODED, CODED), leaf._replace(param=leaf.param.astype("float32")), 1).param


@pytest.mark.slow
def test_half_precision_parameters_round_to_nearest():
    np.testing.assert_array_equal(half(PLAIN)[1].param, whole().astype(jnp.bfloat16))


@pytest.mark.slow
def test_master_weights_keep_what_half_precision_drops():
    _, after = half(MASTER, jnp.zeros(SHAPE, jnp.uint16))
    np.testing.assert_array_equal(join(after.param, after.remainder), whole())


@pytest.mark.slow
def test_nothing_remains_behind_what_rounds_to_infinity():
    leaf, _ = half(MASTER, jnp.zeros(SHAPE, jnp.uint16))
    huge = jnp.full(SHAPE, float(jnp.finfo(jnp.bfloat16).max), jnp.bfloat16)
    grows = leaf._replace(param=huge, remainder=jnp.full(SHAPE, 0x7FFF, jnp.uint16), gradient=-jnp.ones(SHAPE))
    after = stepped((CODED, CODED), grows, 1, weights=MASTER, decay=-1.0)
    assert bool(jnp.all(jnp.isinf(after.param)))
    assert not jnp.any(after.remainder)


@pytest.mark.slow
def test_stochastic_rounding_takes_the_thresholds_of_the_parameter():
    leaf, after = half(STOCHASTIC)
    start = leaf.param.astype("float32")
    bits = thresholds(SHAPE, SALTS[1], 1)
    updates = -0.125 * jnp.sign(leaf.gradient.astype("float32"))
    np.testing.assert_allclose(
        after.param.astype("float32"), sum_to_bfloat16(start, updates, bits).astype("float32"), rtol=2**-7
    )
    same = np.mean(np.asarray(after.param) == np.asarray(sum_to_bfloat16(start, updates, bits)))
    assert same > 0.99
    assert np.mean(np.asarray(after.param) == np.asarray(whole().astype(jnp.bfloat16))) < 0.99


@pytest.mark.slow
def test_a_cautious_decay_acts_where_it_does_not_oppose_the_update():
    leaf, never = half(PLAIN)
    cautious, always = (stepped((CODED, CODED), leaf, 1, decay=0.5, decays=how) for how in (CAUTIOUSLY, EVERYWHERE))
    agree = leaf.gradient.astype("float32") * leaf.param.astype("float32") >= 0
    np.testing.assert_array_equal(cautious.param, jnp.where(agree, always.param, never.param))
    assert 0.3 < float(agree.mean()) < 0.7
