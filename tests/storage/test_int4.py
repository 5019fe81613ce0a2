import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.storage import Int4, Int8, Quantized
from adamx.storage.int4 import OF_M, OF_V, RATIO, is_over_root, over_root, root_of

CODEC = Int4(64, 0)
GRID = (np.arange(1024, dtype=np.uint64) * 2**22 + 2**21).astype(np.uint32)  # thresholds, evenly


def kept(x, square, bits=2**31, codec=CODEC):
    x = jnp.asarray(x, jnp.float32)
    like = codec.zeros(x, x.dtype, square=square)
    return jax.jit(codec.encode, static_argnames="square")(x, like, jnp.full(x.shape, bits, jnp.uint32), square=square)


def read(stored, codec=CODEC):
    return np.asarray(codec.decode(stored, jnp.float32), np.float64)


def normal(shape=(8, 256), seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("square", [False, True], ids=["m", "v"])
def test_zeros_stay_and_a_block_of_one_number_is_exact(square):
    assert not read(kept(np.zeros((2, 128)), square)).any()
    x = np.repeat([[1e-12], [3.0], [2e30]], 128, axis=1)
    within = 0 if square else 2.0**-8  # of bfloat16
    np.testing.assert_allclose(read(kept(x, square)), x.astype(np.float32), rtol=within)
    if not square:
        np.testing.assert_allclose(read(kept(-x, square)), -x.astype(np.float32), rtol=within)


@pytest.mark.parametrize("square", [False, True], ids=["m", "v"])
@pytest.mark.parametrize("bits", [2**26, 2**31, 2**32 - 2**26])
def test_what_is_decoded_is_on_the_grid_that_was_stored(square, bits):
    x = normal() ** 2 if square else normal()
    stored = kept(x, square, bits)
    again = kept(read(stored), square, 2**31)
    np.testing.assert_array_equal(again.codes, stored.codes)
    np.testing.assert_allclose(read(again), read(stored), rtol=1e-6)
    assert len(np.unique(np.asarray(stored.codes).astype(int))) <= 16


@pytest.mark.parametrize("square", [False, True], ids=["m", "v"])
def test_to_one_of_the_two_levels_beside(square):
    x = normal() ** 2 if square else normal()
    low, high = (np.abs(read(kept(x, square, bits))) for bits in (2**32 - 1, 0))
    size = np.abs(np.asarray(x, np.float32))
    smallest = OF_V[0] * np.sort(size.reshape(8, 4, 64))[..., -2].repeat(64, axis=-1).reshape(8, 256)
    above = size > smallest * 1.01 if square else np.ones(size.shape, bool)
    within = 1e-6 if square else 2.0**-8  # the scale of m is bfloat16
    assert (low <= size * (1 + within))[above].all()
    assert (size <= high * (1 + within)).all()
    assert (np.sign(read(kept(x, square, 0))) == np.sign(x)).all()
    if square:
        assert (high <= low * RATIO * (1 + 1e-6)).all()


def test_the_largest_stands_apart_with_its_sign():
    for sign in (1, -1):
        x = normal()
        x[:, ::64] = sign * 2.0**20
        found = read(kept(x, False))
        np.testing.assert_array_equal(found[:, ::64], np.float32(sign * 2.0**20))
        assert np.abs(np.delete(found, np.s_[::64], axis=1)).max() < 5
    both = normal()
    both[:, 5::64], both[:, 6::64] = 100.0, -100.0
    np.testing.assert_allclose(read(kept(both, False))[:, [5, 6]], both[:, [5, 6]], rtol=2.0**-7)


def test_m_is_right_on_average_and_of_v_the_fourth_root():
    x = np.tile(normal((1, 64)), (1024, 1))
    like = CODEC.zeros(jnp.zeros(x.shape), jnp.float32, square=False)
    bits = jnp.asarray(np.repeat(GRID[:, None], 64, axis=1))
    m = read(CODEC.encode(jnp.asarray(x, jnp.float32), like, bits, square=False))
    np.testing.assert_allclose(m.mean(axis=0), x[0], atol=2e-3 * np.abs(x).max())
    like = CODEC.zeros(jnp.zeros(x.shape), jnp.float32, square=True)
    v = read(CODEC.encode(jnp.asarray(x**2, jnp.float32), like, bits, square=True))
    above = x[0] ** 2 > 2 * OF_V[0] * np.max(x**2)
    np.testing.assert_allclose((v**0.25).mean(axis=0)[above], np.sqrt(np.abs(x[0]))[above], rtol=2e-3)


def test_no_v_that_is_not_0_is_kept_as_0_and_none_below_its_floor_is_lost():
    x = 10.0 ** np.random.default_rng(0).uniform(-37, -20, (4, 64))
    found = read(kept(x, True))
    assert (found > 0).all()
    assert (found >= 0.99 * np.minimum(x, np.sort(x)[:, -2:-1] * OF_V[0])).all()


def test_the_root_of_v():
    v = jnp.asarray([0.0, 4.0, 3e38])
    np.testing.assert_allclose(root_of(v), [0, 2, np.sqrt(3e38)], rtol=1e-6)
    np.testing.assert_allclose(over_root(jnp.asarray([1.0, 3.0, -3e38]), v), [0, 1.5, -(2.0**63)], rtol=1e-6)
    assert np.isfinite(over_root(jnp.asarray([3e38]), jnp.asarray([1e-45]))).all()
    assert jax.grad(lambda v: root_of(v).sum())(v)[0] == 0


def test_a_nan_shows_in_its_block_alone():
    for square in (False, True):
        x = normal() ** 2
        x[0, 70] = np.nan
        found = read(kept(x, square))
        assert np.isnan(found[0, 64:128]).all()
        assert np.isnan(found).sum() == 64


def test_bytes_and_leaves_that_stay_float32():
    codec = Int4(min_size=4096, exclude=("norm",))
    params = {"w": jnp.zeros((128, 1024)), "norm": jnp.zeros((128, 1024)), "small": jnp.zeros((16, 16))}
    tx = adamx.adam(1e-3, mu_dtype=codec, nu_dtype=codec)
    found = adamx.state_bytes(tx.init(params)).leaves
    n = 128 * 1024
    assert found == {"w": (n, n * 1.09375), "norm": (n, n * 8), "small": (256, 2048)}
    mesh = jax.sharding.Mesh(jax.devices()[:1], ("data",))
    assert adamx.sharding.state_sharding(tx, params, mesh).leaves["w"].size == n * 1.09375
    mixed = adamx.adam(1e-3, mu_dtype=codec, nu_dtype=Int8(min_size=4096, exclude=("norm",)))
    assert adamx.state_bytes(mixed.init(params)).leaves["w"] == (n, n * 1.59375)


def test_m_is_kept_over_the_root_of_its_v():
    """Neighbours whose gradients differ by decades: m is as exact for small ones as for large ones."""
    tx = adamx.adam(1.0, eps=0.0, mu_dtype=Int4(128, 0))
    sizes = 10.0 ** np.linspace(-8, 0, 128)
    state, errors = tx.init(jnp.zeros((32, 128))), []
    for t in range(20):
        g = jnp.asarray(normal((32, 128), t) * sizes, jnp.float32)
        u, state = jax.jit(tx.update)(g, state)
        errors.append(np.asarray(u))
    wide = adamx.adam(1.0, eps=0.0)
    exact = wide.init(jnp.zeros((32, 128)))
    for t in range(20):
        v, exact = wide.update(jnp.asarray(normal((32, 128), t) * sizes, jnp.float32), exact)
    error = np.abs(errors[-1] - np.asarray(v)).mean(axis=0)
    assert is_over_root(state[0].mu)
    assert error[:32].mean() < 1.5 * error[-32:].mean()
    assert error.max() < 0.2


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda c: adamx.with_ema(optax.sgd(1.0), 0.9, dtype=c), "dtype"),
        (lambda c: adamx.accumulate(optax.sgd(1.0), 2, c), "dtype"),
        (lambda c: adamx.optimizers.slow_momentum(mu_dtype=c), "mu_dtype"),
        (lambda c: adamx.adopt(1.0, mu_dtype=c), "mu_dtype"),
        (lambda c: adamx.ademamix(1.0, mu_dtype=c), "mu_dtype"),
        (lambda c: adamx.adamax(1.0, mu_dtype=c), "mu_dtype"),
    ],
)
def test_an_average_without_a_v_is_refused(make, name):
    with pytest.raises(ValueError, match=rf"^{name}=Int4\(.* holds m over the root of"):
        make(Int4(min_size=4096))


def test_wrong_arguments_and_codes():
    for codec, match in ((Int4(24, 4096), "power of two"), (Int4(exclude="w"), "exclude must be a tuple")):
        with pytest.raises((TypeError, ValueError), match=match):
            adamx.adam(1.0, mu_dtype=codec)
    with pytest.raises(ValueError, match="Int4: exclude"):
        adamx.adam(1.0, nu_dtype=Int4(min_size=4096, exclude=("nothing",))).init({"w": jnp.zeros((64, 64))})
    codes = kept(normal(), True)
    with pytest.raises(TypeError, match=r"stored as those of adamx.storage.Int4, got int8 codes.*restore_as"):
        CODEC.decode(Quantized(codes.codes.astype(jnp.int8), codes.scales), jnp.float32)
    with pytest.raises(TypeError, match=r"stored as those of adamx.storage.Int8, got int4 codes.*restore_as"):
        Int8(64, 4096).decode(codes, jnp.float32)
    assert OF_M[0] == 0
    assert OF_M[-1] == OF_V[-1] == 1
