import functools
import inspect
import itertools
import re
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.storage import Float, Int4, Int8, Resolution
from tests.family import FAMILY

STORAGES = {
    "float32": None,
    "bfloat16": "bfloat16",
    "float16": "float16",
    "e4m3": "float8_e4m3fn",
    "e5m2": "float8_e5m2",
    "int8": Int8(min_size=0),
    "int8, 32": Int8(32, 0),
    "int8, 512": Int8(512, 0),
    "int4": Int4(min_size=0),
}
FINE = ("float32", "bfloat16")
BESIDE = {
    "float16": {"float16"},
    "e4m3": {"e4m3", "e5m2", "int8", "int8, 512", "int4"},
    "e5m2": {"e4m3", "e5m2", "int8", "int8, 512", "int4"},
    "int8": {"int8", "int8, 512", "int4"},
    "int8, 32": {"int8", "int8, 32", "int8, 512", "e4m3", "e5m2", "int4"},
    "int8, 512": {"int8, 512"},
    "int4": set(STORAGES),
}
"""The storages of v with which one of m goes, where steps divide by a root of v; float32 and bfloat16 go with all."""
ROOTLESS = ("adopt", "ademamix")  # they have an average without a v
BESIDE_A_MAXIMUM = {"float16": {"float16"}, "e4m3": {"e4m3", "e5m2", "int4"}, "e5m2": {"e5m2"}}
PAIRS = list(itertools.product(STORAGES, STORAGES))


def goes(optimizer, mu, nu):
    if mu == "int4" and (optimizer.startswith(ROOTLESS) or (optimizer == "adabelief" and nu == "int4")):
        return False
    return mu in FINE or nu in (BESIDE_A_MAXIMUM if "adamax" in optimizer else BESIDE).get(mu, ())


STEPS, SHAPE = 200, (2, 128)


@functools.cache
def streams():
    """Gradients whose sizes differ within a block, or change."""
    random, late = np.random.default_rng(0), np.arange(STEPS)[:, None, None] >= STEPS // 2
    normal, place = random.standard_normal((STEPS, *SHAPE)), np.arange(SHAPE[1])
    sizes = 10 ** -random.uniform(0, 14, SHAPE)
    return jnp.asarray(
        np.stack(
            [
                np.broadcast_to(normal[0], normal.shape),
                normal * 1e-8,
                normal * np.where(late, 0.01, 1),
                normal * np.where(place == 21, 1e4, 1),
                normal * (random.random(normal.shape) < 0.01),
                normal * np.where(place % 64 == 0, 1e-3, 1),
                normal * np.where(place % 64 == 0, 1e-5, 1),
                normal * sizes,
                np.broadcast_to(sizes, normal.shape),
                normal * np.sqrt(sizes) * np.where(place % 64 == 21, 1e6, 1),
                normal * np.where(late & (place % 4 == 1), 0, 1),
                normal * np.where((np.arange(STEPS)[:, None, None] == STEPS // 2) & (place < 3), 1e6, 1),
            ]
        ),
        jnp.float32,
    )


def longest(make, **arguments):
    """The longest step of each stream, with an ε of next to nothing."""
    accepted = inspect.signature(make).parameters
    small = {"weight_decay": 0.0, "eps": 1e-30, "eps_root": 0.0 if make is not adamx.adabelief else 1e-30}
    tx = make(1.0, **{name: value for name, value in small.items() if name in accepted}, **arguments)

    def step(state, g):
        u, state = tx.update(g, state, jnp.zeros(SHAPE))
        return state, jnp.abs(u).max()

    run = jax.jit(jax.vmap(lambda g: jax.lax.scan(step, tx.init(g[0]), g)[1].max()))
    return np.asarray(run(streams()), np.float64)


@functools.cache
def exact(optimizer):
    return longest(FAMILY[optimizer].make)


@pytest.mark.parametrize("optimizer", FAMILY)
def test_a_pair_that_does_not_go_together_is_refused_when_it_is_built(optimizer):
    for mu, nu in PAIRS:
        build = functools.partial(FAMILY[optimizer].make, 1e-3, mu_dtype=STORAGES[mu], nu_dtype=STORAGES[nu])
        if goes(optimizer, mu, nu):
            build()
            continue
        match = r"^mu_dtype=.*( do not go together: m is known to|Int4.* over the root of| in AdaBelief: s averages)"
        with pytest.raises(ValueError, match=match) as caught:
            build()
        if "int4" not in mu or optimizer.startswith("adamax"):
            assert re.search("float32( or bfloat16|, bfloat16 or Int4) m goes with every", str(caught.value))
            assert "pass the same to mu_dtype and nu_dtype" in str(caught.value)


ALIKE = [(name, name) for name in STORAGES]
OTHERS = [*ALIKE[1:6], ("int8, 32", "int8"), ("float32", "int8"), ("int4", "int4"), ("int4", "float32")]
OTHERS += [("int4", "int8"), ("float32", "int4")]
GOING = [
    (optimizer, *pair)
    for optimizer in FAMILY
    for pair in (PAIRS if optimizer == "adam" else OTHERS)
    if goes(optimizer, *pair)
]


@pytest.mark.parametrize(("optimizer", "mu", "nu"), GOING, ids=[" ".join(row) for row in GOING])
def test_no_step_is_longer_than_twice_the_exact_longest(optimizer, mu, nu):
    found = longest(FAMILY[optimizer].make, mu_dtype=STORAGES[mu], nu_dtype=STORAGES[nu])
    np.testing.assert_array_less(found, 2 * exact(optimizer))


@pytest.mark.parametrize("b2", [0.8, 0.95, 0.98, 0.99, 0.9999])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_nor_at_another_decay_rate(dtype, b2):
    found = longest(functools.partial(adamx.adam, b2=b2), mu_dtype=dtype, nu_dtype=dtype)
    np.testing.assert_array_less(found, 2 * longest(functools.partial(adamx.adam, b2=b2)))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "float8_e5m2"])
def test_nor_where_v_in_blocks_is_rounded_to_nearest(dtype):
    make = functools.partial(adamx.adam, b1=0.5, b2=0.8)
    found = longest(make, mu_dtype=dtype, nu_dtype=Float(dtype, stochastic=False))
    np.testing.assert_array_less(found, 2 * longest(make))


REFUSED = [
    ("adam", "int8", "float32", 100),
    ("adam", "float16", "bfloat16", 10),
    ("adam", "e4m3", "float16", 3),
    ("adam", "int8", "int8, 32", 10),
    ("nadam", "e5m2", "float32", 100),
    ("adamax", "int8", "int8", 3),
    ("adabelief", "int4", "int4", 2),
]


@pytest.mark.slow
@mock.patch("adamx.storage.choice.check_pair", mock.Mock())
@mock.patch("adamx.core.averages.check_leaf", mock.Mock())
@mock.patch("adamx.optimizers.adabelief.check_belief", mock.Mock())
@pytest.mark.parametrize(("optimizer", "mu", "nu", "times"), REFUSED)
def test_what_is_refused_would_make_long_steps(optimizer, mu, nu, times):
    found = longest(FAMILY[optimizer].make, mu_dtype=STORAGES[mu], nu_dtype=STORAGES[nu])
    assert (found / exact(optimizer)).max() > times


LEFT_OUT = {
    "min_size": (Int8(min_size=0), Int8()),
    "exclude": (Int8(min_size=0), Int8(min_size=0, exclude=("w",))),
}


@pytest.mark.parametrize(("mu", "nu"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_a_leaf_that_only_the_codec_of_v_leaves_out_is_named_at_init(mu, nu):
    params = {"layer": {"w": jnp.zeros((4, 32))}}
    for tx in (adamx.adamw(1e-3, mu_dtype=mu, nu_dtype=nu), adamx.adopt(1e-3, mu_dtype=mu, nu_dtype=nu)):
        with pytest.raises(ValueError, match=r"^at layer/w nu_dtype keeps v in float32, but mu_dtype holds m in"):
            tx.init(params)
    adamx.adamw(1e-3, mu_dtype=nu, nu_dtype=mu).init(params)
    adamx.adamw(1e-3, mu_dtype=mu, nu_dtype=nu).init({"w": jnp.zeros((0, 32))})


@pytest.mark.slow
@pytest.mark.parametrize("nu_dtype", [None, "float16", Int8(32, 0), Int8()], ids=repr)
def test_a_slow_average_that_is_too_coarse_for_v_is_refused_at_the_first_update(nu_dtype):
    tx = optax.chain(
        adamx.scale_by_moments(nu_dtype=nu_dtype), adamx.optimizers.slow_momentum(mu_dtype=Int8(min_size=0))
    )
    g = {"w": jnp.ones((4, 32))}
    with pytest.raises(ValueError, match=r"do not go together|at w nu_dtype keeps v in float32"):
        tx.update(g, tx.init(g))


class Own:
    """A codec of one's own that says nothing of its blocks."""

    dithered, seed = False, 0

    def __init__(self, codec):
        self.codec = codec

    def __getattr__(self, name):
        if name == "resolution":
            raise AttributeError(name)
        return getattr(self.codec, name)


class Declared(Own):
    def resolution(self, square):
        return Resolution(128, 0.1 if square else 1e-3, apart=True)


def test_codecs_of_ones_own():
    adamx.adam(1e-3, mu_dtype=Own(Float()))
    adamx.adam(1e-3, mu_dtype=Own(Int8()), nu_dtype=Own(Int8()))
    adamx.adam(1e-3, mu_dtype=Int8(), nu_dtype=Declared(Int8()))
    with pytest.raises(ValueError, match=r"A codec of your own tells its blocks by resolution\(square\)$"):
        adamx.adam(1e-3, mu_dtype=Int8(), nu_dtype=Own(Int8()))
    with pytest.raises(ValueError, match=r"m is known to 0\.001 of the largest of 128 neighbours"):
        adamx.adam(1e-3, mu_dtype=Declared(Int8()))


NEAREST = [
    # name, dtype, decay rates that are accepted, that are refused, what is printed of the length
    ("nu_dtype", "bfloat16", (0.9, 0.998), (0.999, 0.9999), "2.2"),
    ("nu_dtype", "float16", (0.8,), (0.9, 0.999), "2.4"),  # in blocks, of small elements
    ("nu_dtype", "float8_e4m3fn", (0.8,), (0.9, 0.999), "2.4"),
    ("mu_dtype", "bfloat16", (0.9, 0.99), (0.995, 0.999), "4.6"),
]


@pytest.mark.parametrize(("name", "dtype", "accepted", "refused", "times"), NEAREST)
def test_rounding_to_nearest_is_refused_where_it_stalls(name, dtype, accepted, refused, times):
    decay = {"mu_dtype": "b1", "nu_dtype": "b2"}[name]
    stored = {"nu_dtype": "bfloat16"} | {name: Float(dtype, stochastic=False)}
    for beta in accepted:
        adamx.adam(1e-3, **{decay: beta}, **stored)
    for beta in refused:
        match = rf"^{name}=Float.* rounds to nearest, which stalls at a decay rate of {beta}: .* times as long"
        with pytest.raises(ValueError, match=match):
            adamx.adam(1e-3, **{decay: beta}, **stored)
    with pytest.raises(ValueError, match=f"up to {times}"):
        adamx.adam(1e-3, **{decay: refused[0]}, **stored)


def test_a_slow_average_to_nearest_is_refused():
    nearest = Float("bfloat16", stochastic=False)
    with pytest.raises(ValueError, match=r"mu_dtype=Float.* rounds to nearest"):
        adamx.optimizers.slow_momentum(b3=0.9999, mu_dtype=nearest)
    adamx.adamax(1e-3, nu_dtype=nearest)  # a maximum rises at once
