"""Leaves of every size: none, one and more than 2^31 elements, the last by shape alone."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx import numerics, shards
from adamx.diagnostics.measure import MEASURED, measure
from adamx.storage.dither import leaf_salt, place, thresholds
from tests.family import each, made

LARGE = {"row": (2**31,), "matrix": (2**17, 2**16), "columns": (2**29, 16), "even larger": (2**33,)}
EMPTY = {"a": (0,), "b": (3, 0), "c": (0, 3), "d": (2, 0, 64)}
CODES = adamx.storage.Int8(min_size=4096)
STORAGES = {
    "float32": {},
    "bfloat16": {"mu_dtype": "bfloat16", "nu_dtype": "bfloat16"},
    "float16": {"mu_dtype": "float16", "nu_dtype": "float16"},
    "int8": {"mu_dtype": CODES, "nu_dtype": CODES},
    "precise": {"precise": True},
}
WRAPPERS = {
    "master weights": adamx.with_master_weights,
    "stochastic rounding": adamx.with_stochastic_rounding,
    "guard": adamx.skip_nonfinite,
    "spikes": adamx.skip_spikes,
    "clipped": lambda tx: optax.chain(optax.clip_by_global_norm(1.0), tx),
    "factors": lambda tx: optax.chain(tx, adamx.scale_by_path({"row": 0.5})),
    "probed": lambda tx: optax.chain(
        adamx.scale_by_moments(), adamx.diagnostics.probe(0.1), adamx.bias_correction(), adamx.scale_by_lr(0.1)
    ),
}
each_storage = pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
each_wrapper = pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)


def stepped(tx, params):
    """By shape alone: the updates, and the parameters after a step."""
    state = jax.eval_shape(tx.init, params)
    jax.eval_shape(lambda s, p: adamx.step(tx, p, s, p), state, params)
    updates, after = jax.eval_shape(tx.update, params, state, params)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    return updates


def large(dtype=jnp.float32):
    return {name: jax.ShapeDtypeStruct(shape, dtype) for name, shape in LARGE.items()}


@pytest.mark.slow
@each_storage
@each
def test_every_optimizer_takes_leaves_of_more_elements_than_int32_counts(entry, storage):
    assert {name: u.shape for name, u in stepped(made(entry, storage), large()).items()} == LARGE


@each_wrapper
def test_every_wrapper_takes_them(wrap):
    assert {name: u.shape for name, u in stepped(wrap(adamx.adamw(0.1)), large(jnp.bfloat16)).items()} == LARGE


def test_their_state_is_weighed_without_overflow():
    state = jax.eval_shape(adamx.adam(0.1).init, large())
    assert adamx.state_bytes(state).leaves["even larger"] == (2**33, 2**36)


def test_minimize_takes_them():
    def run(p):
        return adamx.minimize(lambda p: jnp.sum(p * p), p, adamx.adam(0.1), max_steps=3, atol=1e-3)

    assert jax.eval_shape(run, jax.ShapeDtypeStruct((2**31,), jnp.float32)).params.shape == (2**31,)


@pytest.mark.slow
@each_storage
@each
def test_every_optimizer_takes_leaves_without_elements_in_any_place(entry, storage):
    tx = made(entry, storage)
    for names in (list(EMPTY), list(reversed(EMPTY)), ["a"]):
        params = {str(i): jnp.zeros(EMPTY[name]) for i, name in enumerate(names)} | {"scalar": jnp.ones(())}
        updates, state = tx.update(params, tx.init(params), params)
        moved, after = jax.jit(lambda p, s: adamx.step(tx, p, s, p))(params, state)
        assert [u.shape for u in jax.tree.leaves(updates)] == [p.shape for p in jax.tree.leaves(moved)]
        assert all(np.isfinite(np.asarray(x, np.float32)).all() for x in jax.tree.leaves((updates, after)))


@pytest.mark.slow
@each_wrapper
def test_every_wrapper_takes_leaves_without_elements(wrap):
    params = {"row": jnp.zeros(0, jnp.bfloat16), "b": jnp.zeros((3, 0), jnp.bfloat16)}
    tx = wrap(adamx.adamw(0.1))
    moved, _ = adamx.step(tx, params, tx.init(params), params)
    assert [p.shape for p in jax.tree.leaves(moved)] == [p.shape for p in jax.tree.leaves(params)]


def test_minimize_converges_at_once_where_there_is_nothing_to_move():
    found = adamx.minimize(jnp.sum, jnp.zeros((0, 3)), adamx.adam(0.1), max_steps=9, atol=1e-3)
    assert found.stopped is adamx.loop.StopReason.CONVERGED


@pytest.mark.parametrize("shape", [(), (0,), (7,), (1000,), (40, 25), (25, 40), (3, 5, 7), (1, 512), (512, 2), (2, 0)])
@pytest.mark.parametrize("most", [7, 64, 2**32 - 1])
def test_a_count_is_that_of_integers_however_few_of_them_one_integer_counts(shape, most):
    flags = jnp.asarray(np.random.default_rng(0).random(shape) < 0.7)
    assert numerics.count(flags, jnp.float32, most) == int(np.sum(np.asarray(flags)))
    assert numerics.count(jnp.ones(shape, bool), jnp.float32, most) == math.prod(shape)


@pytest.mark.parametrize("shape", LARGE.values(), ids=LARGE)
def test_integers_count_no_more_elements_than_they_hold(shape):
    """Each sum of integers in the program is over fewer than 2^32 elements, and few floats are added."""
    program = jax.make_jaxpr(lambda flags: shards.share(flags, (), jnp.float32))(jax.ShapeDtypeStruct(shape, bool))
    sums = [equation for equation in equations(program.jaxpr) if equation.primitive.name == "reduce_sum"]
    assert sums
    for equation in sums:
        (x,), (total,) = equation.invars, equation.outvars
        added = math.prod(x.aval.shape) // math.prod(total.aval.shape)
        assert added < (2**32 if x.aval.dtype == jnp.uint32 else 2**20)


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in equation.params.values():
            if hasattr(inner, "jaxpr"):
                yield from equations(inner.jaxpr)


def test_a_share_of_a_large_leaf_is_right():
    """Where a float32 sum of ones stops, at 2^24 of them, and an int8 of ones would have long before."""
    size = 2**25 + 3
    share = jax.jit(lambda n: shards.share(jnp.arange(size) < n, (), jnp.float32))(size - 1)
    np.testing.assert_allclose(
        share, (size - 1) / size, rtol=2 * 2.0**-24
    )  # both numbers are rounded, and the quotient


def test_what_is_measured_of_a_large_leaf_has_its_shape():
    x = jax.ShapeDtypeStruct((2**31,), jnp.float32)
    one = jax.ShapeDtypeStruct((), jnp.float32)
    assert jax.eval_shape(measure, x, x, x, x, (one, one), one, one).shape == (len(MEASURED),)


@pytest.mark.slow
def test_a_shard_may_begin_behind_2_to_the_31():
    salt = leaf_salt("w")
    assert place(salt, (2**31 + 5,)) == np.uint32((int(salt) + 2**31 + 5) % 2**32)
    near = thresholds((4,), salt, 3, (2**40 + 8,))
    np.testing.assert_array_equal(near, thresholds((12,), salt, 3)[8:])


@pytest.mark.skipif(not hasattr(jax, "shard_map"), reason="this JAX keeps shard_map elsewhere")
def test_shards_of_more_elements_than_int32_counts_know_their_place():
    spec, mesh = jax.sharding.PartitionSpec("data"), jax.sharding.Mesh(jax.devices()[:1], ("data",))

    def first_threshold(x):
        ((start,),) = [adamx.storage.shard_offsets(x, spec)]
        return thresholds((1,), 0, 0, (start,))

    x = jax.ShapeDtypeStruct((2**33,), jnp.float32)
    assert jax.eval_shape(jax.shard_map(first_threshold, mesh=mesh, in_specs=spec, out_specs=spec), x).shape == (1,)
