"""Master weights of 24 bits: in both ways of a step, from one number of bits to the other, and what refuses them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from tests.backends import differing, jitted, needs_kernel
from tests.soak.masters import gap

INT8 = adamx.storage.Int8(min_size=0)
narrow = functools.partial(adamx.with_master_weights, bits=24)


def start(shape=(64, 128), seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.bfloat16)


def composed(tx, g, state, p):
    updates, state = tx.update(g, state, p)
    with jax.numpy_dtype_promotion("standard"):  # optax.apply_updates adds float32 to bfloat16
        return optax.apply_updates(p, updates), state


MAKERS = {"identity": optax.identity, "scale": lambda: optax.scale(0.5), "adamw": lambda: adamx.adamw(2.0**-10)}


def check_both_ways(make):
    with jax.numpy_dtype_promotion("strict"):
        tx = narrow(make(), seed=3)
        ways = jax.jit(functools.partial(composed, tx)), jax.jit(functools.partial(adamx.step, tx, backend="xla"))
        found = [(start(), tx.init(start())) for _ in ways]
        for t in range(4):
            g = jnp.asarray(np.random.default_rng(t + 1).standard_normal((64, 128)) * 1e-4, jnp.bfloat16)
            found = [way(g, state, p) for way, (p, state) in zip(ways, found, strict=True)]
            states = [state for _, state in found]
            assert [jax.typeof(x).dtype for x in jax.tree.leaves(states[0])] == [
                jax.typeof(x).dtype for x in jax.tree.leaves(states[1])
            ]
            (p, state), (q, other) = found
            np.testing.assert_array_equal(p, q)
            np.testing.assert_array_equal(state.remainder, other.remainder)
        assert (state.step.dtype, state.step, state.remainder.dtype) == (jnp.uint32, 4, jnp.uint8)
        assert len(np.unique(state.remainder)) > 200


MOMENTS = {
    "float32": {},
    "bfloat16": {"mu_dtype": "bfloat16", "nu_dtype": "bfloat16"},
    "int8": {"mu_dtype": INT8, "nu_dtype": INT8},
}


@needs_kernel
@pytest.mark.parametrize("shape", [(64, 128), (33, 37), (4500,)], ids=str)
@pytest.mark.parametrize("moments", MOMENTS)
def test_the_kernel_keeps_the_weights_of_xla_to_the_bit(moments, shape):
    # The first direction is the sign of a gradient that is a power of two: updates are exact in any order.
    tx = narrow(adamx.adam(1e-5, b1=0.5, b2=0.5, **MOMENTS[moments]), seed=5)
    random, p = np.random.default_rng(0), start(shape).at[:3].set(0)
    assert adamx.explain(tx, p).leaves[0].executor == "native"
    kernel, xla = (jitted(tx, backend=backend) for backend in ("auto", "xla"))
    state, changed = tx.init(p), 0.0
    for _ in range(5):
        g = jnp.asarray(random.choice([-1, 1], shape) * 2.0 ** random.integers(0, 8, shape), jnp.bfloat16)
        state = state._replace(inner=tx.init(p).inner)
        got, expected = kernel(p, state, g), xla(p, state, g)
        assert differing(got, expected) == []
        changed += np.mean(np.asarray(got[1].remainder) != np.asarray(state.remainder))
        p, state = expected
    assert changed > 1


@needs_kernel
def test_the_kernel_is_a_unit_from_xla_where_the_update_is_a_bit_off():
    tx, p = narrow(adamx.adamw(1e-2, weight_decay=0.1)), start()
    kernel, xla = (jitted(tx, backend=backend) for backend in ("auto", "xla"))
    state = tx.init(p)
    for t in range(5):
        g = start(seed=t + 1)
        (got, mine), (expected, theirs) = kernel(p, state, g), xla(p, state, g)
        a, b = (np.asarray(adamx.master_params(s, q)) for s, q in ((mine, got), (theirs, expected)))
        assert (np.abs(a - b) <= gap(np.maximum(np.abs(a), np.abs(b)))).all()
        assert np.mean(a != b) < 0.02
        p, state = expected, theirs


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_update_and_step_round_alike(make):
    check_both_ways(make)


def test_update_and_step_round_alike_in_x64(x64):
    check_both_ways(MAKERS["adamw"])


def test_a_weight_is_one_of_the_two_beside_the_sum():
    tx, p = narrow(optax.identity()), start()
    state = tx.init(p)
    u = np.random.default_rng(1).standard_normal(p.shape).astype(np.float32)
    for moved_by in (u, 1e-7 * u):
        before = np.asarray(adamx.master_params(state, p), np.float64)
        p, state = jax.jit(functools.partial(composed, tx))(jnp.asarray(moved_by), state, p)
        after = np.asarray(adamx.master_params(state, p), np.float64)
        unit = gap(np.maximum(np.abs(after), np.abs(before + moved_by)))
        assert (np.abs(after - (before + moved_by)) < unit).all()
        assert (np.asarray(after, np.float32).view(np.uint32) & 0xFF == 0).all()


@pytest.mark.parametrize("by", [2.0**-26, 3e-6, 1e-4])
def test_updates_far_below_the_last_bit_add_up(by):
    steps, n = 4096, 4096
    tx, p = narrow(optax.identity()), jnp.full(n, 1.5, jnp.bfloat16)

    def step(carry, _):
        return composed(tx, jnp.full(n, by, jnp.float32), *carry[::-1]), None

    p, state = jax.jit(lambda carry: jax.lax.scan(step, carry, length=steps)[0])((p, tx.init(p)))
    moved = np.asarray(adamx.master_params(state, p), np.float64) - 1.5 - steps * float(np.float32(by))
    assert np.sqrt(np.mean((moved / 2.0**-15) ** 2)) < 1.5
    assert abs(moved.mean()) < 2.0**-15 / 16


def test_seeds_and_leaves_have_walks_of_their_own():
    def remainder(seed, name="w"):
        tx, p = narrow(optax.sgd(1e-3), seed=seed), {name: start()}
        return np.asarray(composed(tx, {name: jnp.ones((64, 128), jnp.bfloat16)}, tx.init(p), p)[1].remainder[name])

    np.testing.assert_array_equal(remainder(0), remainder(0))
    assert 0.2 < (remainder(0) != remainder(1)).mean() < 0.8
    assert 0.2 < (remainder(0) != remainder(0, "v")).mean() < 0.8


def test_three_bytes_of_state_and_two_of_parameters():
    tx = narrow(adamx.adamw(1e-3, mu_dtype=INT8, nu_dtype=INT8))
    state = tx.init(start((128, 1024)))
    assert adamx.state_bytes(state).leaves["the tree itself"] == (131_072, 131_072 * 3.125)
    found = adamx.explain(tx, {"w": start((128, 1024))})
    if adamx.kernels.backend().name == "native":
        assert (found.leaves[0].executor, found.leaves[0].why) == ("native", "")


def test_a_gpu_leaves_them_to_xla():
    tx = narrow(adamx.adamw(1e-3, mu_dtype=INT8, nu_dtype=INT8))
    found = adamx.explain(tx, {"w": start((128, 1024))}, "cuda").leaves[0]
    assert found.executor == "xla"
    if "Pallas" not in found.why and "JAX" not in found.why:
        assert found.why == "XLA rounds master weights to 24 bits"


def test_what_is_set_is_read():
    weights = jnp.asarray(np.random.default_rng(0).standard_normal((64, 128)), jnp.float32)
    tx, p = narrow(adamx.adam(1e-3)), weights.astype(jnp.bfloat16)
    p, state = adamx.set_master_params(tx.init(p), p, weights)
    found = np.asarray(adamx.master_params(state, p), np.float64)
    assert (np.abs(found - np.asarray(weights, np.float64)) <= gap(np.asarray(weights)) / 2).all()
    assert (np.asarray(p, np.float64) != found).mean() > 0.9
    again, same = adamx.set_master_params(state, p, adamx.master_params(state, p))
    jax.tree.map(np.testing.assert_array_equal, (again, same), (p, state))


def test_a_state_of_another_number_of_bits_is_told_what_to_do():
    p, inner = start(), adamx.adam(1e-3)
    for tx, other in (
        (narrow(inner), adamx.with_master_weights(inner)),
        (adamx.with_master_weights(inner), narrow(inner)),
    ):
        state = composed(other, p, other.init(p), p)[1]
        for way in (tx.update, lambda g, state, p, tx=tx: adamx.step(tx, g, state, p)):
            with pytest.raises(
                TypeError, match=r"at other numbers of bits. Weights move .* by adamx.set_master_params"
            ):
                way(p, state, p)
        with pytest.raises(TypeError, match="the restored state is not as"):
            adamx.interop.check_restored(tx, state, p)
        q, after = adamx.set_master_params(tx.init(p), p, adamx.master_params(state, p))
        after = after._replace(inner=state.inner)
        adamx.interop.check_restored(tx, after, p)
        tx.update(p, after, q)


@pytest.mark.parametrize("dtype", ["float16", "float8_e5m2"])
def test_only_bfloat16_is_a_part_of_its_weight(dtype):
    params = {"w": start(), "v": start().astype(dtype)}
    with pytest.raises(
        TypeError, match=rf"bits=24 keeps 8 bits .* the parameter at v is {dtype}, .*: leave bits at 32"
    ):
        narrow(adamx.adam(1e-3)).init(params)


def test_wider_parameters_pass_through():
    tx, p = narrow(optax.sgd(0.5)), {"half": start(), "single": start().astype(jnp.float32)}
    p, state = adamx.step(tx, p, tx.init(p), p)
    assert state.remainder["single"] is None
    np.testing.assert_array_equal(p["single"], start().astype(jnp.float32) * 0.5)


@pytest.mark.parametrize(("bits", "error"), [(16, ValueError), (23, ValueError), ("24", TypeError), (True, TypeError)])
def test_other_numbers_of_bits(bits, error):
    with pytest.raises(error, match="bits must be"):
        adamx.with_master_weights(optax.sgd(1.0), bits)
