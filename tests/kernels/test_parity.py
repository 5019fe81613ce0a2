"""The fused step against the composed one: equal codes, and float32 within two units in the last place."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.storage import Float, Int4, Int8
from adamx.storage.codec import Quantized
from tests.backends import composed, differing, jitted, needs_kernel, ulps

SHAPES = {
    "matrix": (64, 128),
    "odd": (3, 5, 37),
    "deep": (2, 3, 48),
    "row": (1, 1),
    "vector": (4500,),
    "scalar": (),
    "empty": (0, 4),
}
INT8, INT4 = (codec(block_size=64, min_size=0) for codec in (Int8, Int4))
STORAGES = {
    "float32": {},
    "bfloat16 m": {"mu_dtype": "bfloat16"},
    "bfloat16": {"mu_dtype": "bfloat16", "nu_dtype": "bfloat16"},
    "nearest": {"mu_dtype": Float("bfloat16", stochastic=False), "nu_dtype": Float("bfloat16", stochastic=False)},
    "int8": {"mu_dtype": INT8, "nu_dtype": INT8},
    "nesting int8": {"mu_dtype": Int8(32, 0, seed=3), "nu_dtype": INT8},
    "int8 v": {"nu_dtype": INT8},
    "nearest m, int8 v": {"mu_dtype": Float("bfloat16", stochastic=False), "nu_dtype": INT8},
    "int4": {"mu_dtype": INT4, "nu_dtype": INT4},
    "int4 m, int8 v": {"mu_dtype": Int4(32, 0), "nu_dtype": INT8},
    "bfloat16 m, int4 v": {"mu_dtype": "bfloat16", "nu_dtype": Int4(128, 0, seed=3)},
    "float16, left to XLA": {"mu_dtype": "float16", "nu_dtype": "float16"},
}
RULES = {
    "adam": adamx.adam,
    "nesterov": functools.partial(adamx.adam, nesterov=True),
    "precise": functools.partial(adamx.adam, precise=True),
    "eps": functools.partial(adamx.adam, eps=1e-4, eps_root=1e-6),
    "adamw": functools.partial(adamx.adamw, weight_decay=0.1, mask={name: name != "odd" for name in SHAPES}),
}
WRAPPERS = {
    "float32": (lambda tx: tx, "float32"),
    "float16": (lambda tx: tx, "float16"),
    "bfloat16": (lambda tx: tx, "bfloat16"),
    "master weights": (adamx.with_master_weights, "bfloat16"),
    "float16 master weights": (adamx.with_master_weights, "float16"),
    "24 bits": (functools.partial(adamx.with_master_weights, bits=24), "bfloat16"),
    "stochastic rounding": (adamx.with_stochastic_rounding, "bfloat16"),
}


def tree(seed, dtype="float32", scale=1.0):
    """Normal numbers, every third one shrunk by up to 10^9, every seventh one 0."""
    random = np.random.default_rng(seed)

    def leaf(shape):
        x = scale * random.standard_normal(shape)
        x *= np.where(random.random(shape) < 1 / 3, 10 ** random.uniform(-9, 0, shape), 1)
        return jnp.asarray(np.where(random.random(shape) < 1 / 7, 0, x), dtype)

    return {name: leaf(shape) for name, shape in SHAPES.items()}


def steps(rule, wrap, dtype, backend, count=4, **arguments):
    """(got, expected, before, gradients) of each step, all from what `update` and `apply_updates` left before.

    Gradients have 8 digits, so that their squares are exact.
    """
    tx, params = wrap(rule(**arguments)), tree(0, dtype)
    native, reference, state = jitted(tx, backend=backend), composed(tx), tx.init(params)
    for t in range(count):
        gradients = jax.tree.map(lambda g: g.astype(dtype), tree(t + 1, "bfloat16", 10.0 ** (t - 2)))
        before = (params, state)
        params, state = reference(*before, gradients)
        yield native(*before, gradients), (params, state), before, gradients


def moments_of(state):
    return next(x for x in jax.tree.leaves(state, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(x, "mu"))


BACKENDS = [pytest.param("auto", marks=needs_kernel), "xla"]
BARS = {"bfloat16": 4, "float16": 4}
"""Units in the last place that a parameter may differ by, else 2.

XLA rounds a half-precision parameter with nothing behind it three times: its direction, its update and itself.
"""
BARS_OF = {"int4": 3, "int4 m, int8 v": 3}
"""The same by storage: their m has all 24 digits, where gradients of 8 leave others few, so quotients differ more."""


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("storage", STORAGES)
def test_codes_and_random_bits_are_those_of_update(storage, wrapper, backend):
    # With β = 1/2 and gradients of 8 digits an average is rounded once in any order of operations, so that nothing may
    # differ but the parameters and what hangs on their last bits.
    wrap, dtype = WRAPPERS[wrapper]
    rule = functools.partial(adamx.adam, 1e-2, b1=0.5, b2=0.5, **STORAGES[storage])
    for (params, state), (expected_params, expected), before, _ in steps(rule, wrap, dtype, backend):
        assert differing(moments_of(state), moments_of(expected)) == []
        for name, p in params.items():
            bar = max(BARS.get(wrapper, 2), BARS_OF.get(storage, 2))
            assert ulps(p, expected_params[name], before[0][name]) <= bar, name


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("rule", RULES)
def test_float32_is_within_2_ulp_of_update(rule, wrapper, backend):
    wrap, dtype = WRAPPERS[wrapper]
    for got, expected, (before, state), gradients in steps(functools.partial(RULES[rule], 1e-2), wrap, dtype, backend):
        mine, theirs, old = map(moments_of, (got[1], expected[1], state))
        for name in SHAPES:
            terms = jnp.maximum(jnp.abs(old.mu[name]), jnp.abs(gradients[name].astype(jnp.float32)) * 0.1)
            assert ulps(mine.mu[name], theirs.mu[name], terms) <= 2, name
            assert ulps(mine.nu[name], theirs.nu[name]) <= 2, name
            bar = max(BARS.get(wrapper, 2), 3 if rule == "adamw" else 2)  # decay is one more term, contracted or not
            assert ulps(got[0][name], expected[0][name], before[name]) <= bar, name


LARGE = {"matrix": (512, 256), "vector": (600,), "scalar": ()}
CHAINS = {
    "adam": adamx.adam(1e-3),
    "adamw": adamx.adamw(1e-3, weight_decay=0.1),
    "clipped": adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adamw(1e-3, weight_decay=0.1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 0.05, 1e-6])
@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("name", CHAINS)
def test_parameters_differ_by_5_units_of_the_larger_of_parameter_and_learning_rate(name, jit, scale):
    # Where the terms of m cancel, its rounding is of their size: about that of a step, the learning rate.
    tx, random = CHAINS[name], np.random.default_rng(0)
    params = {key: jnp.asarray(scale * random.standard_normal(s), "float32") for key, s in LARGE.items()}
    state, fused, reference = tx.init(params), jitted(tx), composed(tx)
    for _ in range(10):
        gradients = {key: jnp.asarray(random.standard_normal(p.shape), "float32") for key, p in params.items()}
        got, _ = fused(params, state, gradients)
        with jax.disable_jit(not jit):
            expected, state = reference(params, state, gradients)
        for key, p in params.items():
            assert ulps(got[key], expected[key], jnp.maximum(jnp.abs(p), 1e-3)) <= 5, key
        params = expected


@needs_kernel
@pytest.mark.parametrize("leaves", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 5, 1000])
def test_from_zero_the_update_itself_is_within_2_ulp_of_xla(leaves, count):
    params = {str(i): jnp.zeros(5000) for i in range(leaves)}
    gradients, moments = (
        {name: jnp.asarray(x) for name, x in zip(params, normal(leaves, s), strict=True)} for s in (1, 2)
    )
    state = adamx.adam(1e-2).init(params)
    squares = jax.tree.map(jnp.square, moments)
    state = (state[0]._replace(count=jnp.int32(count), mu=moments, nu=squares), *state[1:])
    got, expected = (f(adamx.adam(1e-2))(params, state, gradients)[0] for f in (jitted, composed))
    # By a weight of a single leaf XLA multiplies, where it divides by one that leaves share, as the kernel does.
    assert max(ulps(got[name], expected[name]) for name in params) <= (5 if leaves == 1 else 2)


def normal(leaves, seed):
    return np.random.default_rng(seed).standard_normal((leaves, 5000)).astype(np.float32)


@pytest.mark.slow
@needs_kernel
def test_a_long_run_ends_where_xla_ends():
    ends, tx = [], adamx.adamw(optax.cosine_decay_schedule(1e-2, 100), weight_decay=0.01)
    for step in (jitted(tx), composed(tx)):
        params = tree(0)
        state = tx.init(params)
        for t in range(100):
            params, state = step(params, state, tree(t + 1))
        ends.append((params, state))
    assert differing(ends[0][1], ends[1][1]) == []
    for name in SHAPES:
        np.testing.assert_allclose(ends[0][0][name], ends[1][0][name], rtol=0, atol=1e-5)


@pytest.mark.slow
@needs_kernel
@pytest.mark.parametrize("codec", [INT8, INT4], ids=["int8", "int4"])
def test_codes_are_those_of_xla_in_a_million_elements(codec):
    """Many enough for fractions that are within 2^-16 of their thresholds; averages are exact, as above."""
    params, gradients = (
        {"w": jnp.ones((1024, 1024))},
        jnp.round(jax.random.normal(jax.random.key(0), (1024, 1024)) * 64),
    )
    rule = functools.partial(adamx.adam, 1e-2, b1=0.5, b2=0.5, mu_dtype=codec, nu_dtype=codec)
    state = rule().init(params)
    native, reference = (f(rule())(params, state, {"w": gradients}) for f in (jitted, composed))
    assert differing(native[1], reference[1]) == []


@pytest.mark.slow
@needs_kernel
@pytest.mark.parametrize("offset", [(16, 32), (3, 5)], ids=["where groups begin", "within a group"])
@pytest.mark.parametrize("wrapper", ["stochastic rounding", "24 bits"])
@pytest.mark.parametrize("storage", ["bfloat16", "int8", "int4"])
def test_a_shard_meets_the_thresholds_of_its_place(storage, wrapper, offset):
    params = {"w": jnp.ones((40, 64), "bfloat16")}
    gradients = {"w": jnp.round(jax.random.normal(jax.random.key(0), (40, 64)) * 64)}
    ends = []
    for backend in ("auto", "xla"):
        tx = WRAPPERS[wrapper][0](adamx.adam(1e-2, b1=0.5, b2=0.5, **STORAGES[storage]))
        ends.append(jitted(tx, backend=backend, dither_offset={"w": offset})(params, tx.init(params), gradients))
    assert differing(*ends) == []


@pytest.mark.slow
@needs_kernel
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e30, 3e38, 1e-30, 1e-45, -0.0])
@pytest.mark.parametrize("storage", STORAGES)
def test_gradients_at_the_ends_of_the_range(storage, value):
    rule = functools.partial(adamx.adam, 1e-2, b1=0.5, b2=0.5, **STORAGES[storage])
    native, reference = jitted(rule()), composed(rule())
    params = {"w": jnp.ones((2, 96))}
    state = rule().init(params)
    for t in range(3):
        gradients = {"w": jnp.full((2, 96), 0.25).at[0, 5].set(value if t == 1 else 0.5)}
        got = native(params, state, gradients)
        params, state = reference(params, state, gradients)
        assert differing(*(read(STORAGES[storage], moments) for moments in (got[1][0], state[0]))) == []
        assert ulps(got[0]["w"], params["w"], 1.0) <= 2


def read(arguments, moments):
    """Both moments as they are read: the code of a NaN has its sign, which the processor chooses and nobody sees."""
    found = []
    for name, stored in (("mu_dtype", moments.mu["w"]), ("nu_dtype", moments.nu["w"])):
        codec = arguments.get(name)
        codec = Float(codec) if isinstance(codec, str) else codec
        found.append((codec.decode(stored, jnp.float32), stored.scales) if isinstance(stored, Quantized) else stored)
    return found
