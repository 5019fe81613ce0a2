"""`on_host` where host and accelerator are one device; two devices are in tests/host.py."""

import copy
import functools
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from tests.backends import differing, needs_kernel

PARAMS = {"w": jnp.linspace(-1, 1, 6).reshape(2, 3), "none": None, "b": jnp.ones(())}
GRADIENTS = {"w": jnp.linspace(2, -1, 6).reshape(2, 3), "none": None, "b": jnp.full((), 0.3)}
TRANSFORMATIONS = {
    "adamw": adamx.adamw(0.1),
    "clipped": adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adamw(0.1)),
    "guarded": adamx.skip_nonfinite(adamx.adam(0.1)),
    "optax": optax.adam(0.1),
    "amsgrad": adamx.amsgrad(0.1),
    "nothing": optax.set_to_zero(),
}
QUICK = ["clipped", "guarded masters", "bytes", "refusals"]


def program(*names):
    command = [sys.executable, "-W", "error", Path(__file__).with_name("host.py"), *names]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-500:] + result.stderr[-3000:]
    return result.stdout.count("ok")


def copied(tree):
    return jax.tree.map(jnp.copy, tree)


@pytest.mark.slow
def test_two_devices():
    assert program(*QUICK) == len(QUICK)


@pytest.mark.slow
def test_two_devices_with_every_transformation():
    assert program() == 11


@pytest.mark.parametrize("backend", ["auto", "xla"])
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_equals_the_jitted_step(name, backend):
    tx = TRANSFORMATIONS[name]
    offloaded, params, expected = adamx.on_host(tx), copied(PARAMS), PARAMS
    state, reference = offloaded.init(params), tx.init(expected)
    step = jax.jit(lambda p, s, g: adamx.step(tx, g, s, p, backend=backend))
    for _ in range(3):
        params, state = adamx.step(offloaded, GRADIENTS, state, params, backend=backend)
        expected, reference = step(expected, reference, GRADIENTS)
    assert differing((params, state), (expected, reference)) == []
    assert jax.tree.structure(state) == jax.tree.structure(reference)


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_update_is_that_of_what_it_wraps(name):
    tx = TRANSFORMATIONS[name]
    offloaded = adamx.on_host(tx)
    state = offloaded.init(PARAMS)
    got = offloaded.update(GRADIENTS, state, PARAMS)
    assert differing(got, jax.jit(tx.update)(GRADIENTS, tx.init(PARAMS), PARAMS)) == []
    assert not any(x.is_deleted() for x in jax.tree.leaves((state, GRADIENTS, PARAMS)))


def test_uses_up_state_and_parameters_but_no_gradients():
    tx, params = adamx.on_host(adamx.adam(0.1)), copied(PARAMS)
    state = tx.init(params)
    adamx.step(tx, GRADIENTS, state, params)
    assert all(x.is_deleted() for x in jax.tree.leaves((state[0].mu, state[0].nu, params)))
    assert not any(x.is_deleted() for x in jax.tree.leaves(GRADIENTS))


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_without_donation_a_step_can_be_taken_twice(name):
    tx = adamx.on_host(TRANSFORMATIONS[name], donate=False)
    state = tx.init(PARAMS)
    first, second = (adamx.step(tx, GRADIENTS, state, PARAMS) for _ in range(2))
    assert differing(first, second) == []
    again, third = (adamx.step(tx, GRADIENTS, s, p) for p, s in (first, second))
    assert differing(again, third) == []


def test_the_state_stays_in_place():
    tx, params = adamx.on_host(adamx.adam(0.1)), {"w": jnp.ones((64, 64))}
    state = tx.init(params)
    places = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(state) if x.ndim]
    for _ in range(2):
        params, state = adamx.step(tx, {"w": jnp.ones((64, 64))}, state, params)
        assert [x.unsafe_buffer_pointer() for x in jax.tree.leaves(state) if x.ndim] == places


def test_one_array_in_two_places_is_left_as_it_is():
    tx, w = adamx.on_host(adamx.adam(0.1)), jnp.ones(2)
    params = {"a": w, "b": w}
    (got, _), expected = adamx.step(tx, params, tx.init(params), params), 0.9
    np.testing.assert_allclose([got["a"], got["b"]], expected, rtol=1e-6)
    assert not w.is_deleted()


@pytest.mark.slow
def test_parameters_that_the_caller_changes_count():
    tx, plain = adamx.on_host(adamx.adam(0.1)), adamx.adam(0.1)
    params, state = adamx.step(tx, GRADIENTS, tx.init(PARAMS), copied(PARAMS))
    expected, reference = jax.jit(lambda g, s, p: adamx.step(plain, g, s, p))(GRADIENTS, plain.init(PARAMS), PARAMS)
    changed = [jax.tree.map(lambda p: p * 0.5, p) for p in (params, expected)]
    got, _ = adamx.step(tx, GRADIENTS, state, changed[0])
    expected, _ = jax.jit(lambda g, s, p: adamx.step(plain, g, s, p))(GRADIENTS, reference, changed[1])
    assert differing(got, expected) == []


def test_numpy_arrays_of_a_checkpoint_go_on():
    tx, params = adamx.on_host(adamx.adam(0.1)), copied(PARAMS)
    restored = jax.tree.map(np.asarray, (tx.init(params), params))
    got, state = adamx.step(tx, GRADIENTS, *restored)
    expected, _ = adamx.step(tx, GRADIENTS, tx.init(params), params)
    assert differing(got, expected) == []
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(state))


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_extra_arguments_and_empty_trees(name):
    tx = adamx.on_host(TRANSFORMATIONS[name])
    params, _ = adamx.step(tx, GRADIENTS, tx.init(PARAMS), copied(PARAMS), value=jnp.float32(2))
    assert params["w"].shape == (2, 3)
    for empty in ({}, {"a": None}):
        assert adamx.step(tx, empty, tx.init(empty), empty)[0] == empty


def test_an_array_among_its_arguments_reaches_the_transformation():
    def update(updates, state, params=None, *, value):
        return jax.tree.map(lambda g: g * value, updates), state

    tx = adamx.on_host(optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update))
    assert float(adamx.step(tx, jnp.ones(()), tx.init(jnp.ones(())), jnp.ones(()), value=3.0)[0]) == 4


@pytest.mark.slow
def test_strict_promotion_debugging_and_x64(x64):
    for dtype in ("float32", "float64", "bfloat16"):
        params = jax.tree.map(lambda p: p.astype(dtype), PARAMS)
        tx = adamx.on_host(adamx.with_master_weights(adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adamw(0.1))))
        with jax.numpy_dtype_promotion("strict"), jax.debug_nans(True):
            got, _ = adamx.step(tx, GRADIENTS, tx.init(params), copied(params))
        assert {str(x.dtype) for x in jax.tree.leaves(got)} == {dtype}


@pytest.mark.slow
def test_without_jit():
    tx = adamx.on_host(adamx.skip_nonfinite(adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adamw(0.1))))
    with jax.disable_jit():
        got, _ = adamx.step(tx, GRADIENTS, tx.init(PARAMS), copied(PARAMS))
    expected, _ = adamx.step(tx, GRADIENTS, tx.init(PARAMS), copied(PARAMS))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), got, expected)


@pytest.mark.skipif(
    "pinned_host" not in {memory.kind for memory in jax.devices("cpu")[0].addressable_memories()},
    reason="CPUs have one kind of memory in jax 0.6",
)
@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_xlas_own_way_goes_on_from_the_same_state(name):
    tx = TRANSFORMATIONS[name]
    offloaded, params = adamx.on_host(tx), copied(PARAMS)
    reference, expected = tx.init(PARAMS), PARAMS
    params, state = adamx.step(offloaded, GRADIENTS, offloaded.init(params), params)
    pinned = jax.tree.map(lambda x: x.sharding.with_memory_kind("pinned_host"), state)
    device = jax.tree.map(lambda x: x.sharding.with_memory_kind("device"), state)

    @functools.partial(jax.jit, donate_argnums=(0, 1), out_shardings=(None, pinned))
    def step(params, state, gradients):
        return adamx.step(tx, gradients, jax.device_put(state, device), params)

    params, state = step(params, jax.device_put(state, pinned), GRADIENTS)
    assert {x.sharding.memory_kind for x in jax.tree.leaves(state)} <= {"pinned_host"}
    params, state = adamx.step(offloaded, GRADIENTS, jax.device_put(state, device), params)
    plain = jax.jit(lambda p, s, g: adamx.step(tx, g, s, p))
    for _ in range(3):
        expected, reference = plain(expected, reference, GRADIENTS)
    assert differing((params, state), (expected, reference)) == []


@needs_kernel
def test_explain_bytes_and_templates():
    params, tx = {"w": jnp.ones((256, 256))}, adamx.on_host(adamx.adamw(0.1))
    found = adamx.explain(tx, params)
    assert found.one_pass
    assert found.leaves[0].executor == "native"
    assert adamx.state_bytes(tx.init(params)).total == found.state_bytes == adamx.explain(adamx.adamw(0.1), params)[3]
    state, template = tx.init(jax.eval_shape(lambda: params)), jax.eval_shape(tx.init, params)
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, template)


def test_copies_and_pickles_as_functions_do():
    tx = adamx.on_host(adamx.adam(0.1))
    params, state = adamx.step(tx, GRADIENTS, tx.init(PARAMS), copied(PARAMS))
    same = copy.deepcopy(tx)
    assert adamx.step(same, GRADIENTS, state, params)[0]["w"].shape == (2, 3)


def inside(wrap):
    """A step of `on_host` inside something else."""
    tx = wrap(adamx.on_host(adamx.adam(0.1)))
    return adamx.step(tx, GRADIENTS, tx.init(PARAMS), PARAMS)


HALF = {"w": jnp.ones(2, jnp.bfloat16)}


@pytest.mark.slow
def test_refusals():
    tx = adamx.on_host(adamx.adam(0.1))
    state = tx.init(PARAMS)
    for call in (lambda g: adamx.step(tx, g, state, PARAMS), lambda g: tx.update(g, state, PARAMS)):
        for f in (jax.jit(call), lambda g, call=call: jax.vmap(call)(jax.tree.map(lambda x: x[None], g))):
            with pytest.raises(TypeError, match=r"steps outside of jit: call adamx\.step or update where gradients"):
                f(GRADIENTS)
    for wrap in (adamx.skip_nonfinite, lambda t: adamx.chain(adamx.clip_by_global_norm(1.0), t)):
        with pytest.raises(TypeError, match="put on_host outermost"):
            inside(wrap)
    masters = adamx.with_master_weights(tx)
    with pytest.raises(TypeError, match="put on_host outermost"):
        adamx.step(masters, HALF, masters.init(HALF), HALF)
    with pytest.raises(TypeError, match=r"device must be one of jax\.devices\(\), got 'cpu'"):
        adamx.on_host(adamx.adam(0.1), "cpu")
    with pytest.raises(ValueError, match="the gradient tree does not have the structure"):
        adamx.step(tx, {"w": PARAMS["w"]}, state, PARAMS)
    with pytest.raises(TypeError, match="expected the state that init returned"):
        adamx.step(tx, GRADIENTS, {"count": jnp.int32(0)}, PARAMS)
    assert not any(x.is_deleted() for x in jax.tree.leaves((state, PARAMS, GRADIENTS)))
