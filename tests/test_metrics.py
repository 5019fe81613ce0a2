"""Norms out of the pass of a step, against sums in float64 of the arrays that go in and come out."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.metrics import read_norms
from tests.backends import composed, differing, jitted, needs_kernel
from tests.norms import PATTERNS, ROUNDED, WAYS, assert_norms, each_way, expected, norm, tree

INT8 = {"mu_dtype": adamx.storage.Int8(64, 4096), "nu_dtype": adamx.storage.Int8(64, 4096)}
BFLOAT16 = {"mu_dtype": "bfloat16", "nu_dtype": "bfloat16"}
CLIPPED = adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adamw(0.1))
MAKERS = {
    "adamw": adamx.adamw(0.1),
    "clipped": CLIPPED,
    "changed before": adamx.chain(optax.clip(0.1), adamx.adamw(0.1)),
    "nesterov": adamx.nadamw(0.1),
    "int8": adamx.adamw(0.1, **INT8),
    "bfloat16": adamx.adamw(0.1, **BFLOAT16),
    "cautious": adamx.cautious_adamw(0.1),
    "by path": adamx.chain(adamx.adamw(0.1), adamx.scale_by_path({"^head": 0.5})),
    "guard": adamx.skip_nonfinite(CLIPPED),
    "spikes": adamx.skip_spikes(adamx.adamw(0.1)),
    "average": adamx.with_ema(adamx.adamw(0.1), 0.9),
    "microbatch": adamx.accumulate(adamx.adamw(0.1), 1),
    "routed": adamx.route({"^head": None, "bias": optax.sgd(0.1)}, default=adamx.adamw(0.1)),
    "injected": adamx.inject_hyperparams(adamx.adamw)(learning_rate=0.1),
    "optax": optax.adamw(0.1),
    "twice": adamx.with_norms(adamx.adamw(0.1)),
}


@pytest.mark.slow
@each_way
@pytest.mark.parametrize("name", MAKERS)
def test_norms_are_those_of_the_arrays(name, way):
    tx, params, gradients = adamx.with_norms(MAKERS[name], *PATTERNS), tree(0), tree(1)
    state = tx.init(params)
    for _ in range(2):
        before = params
        params, state = way(tx)(params, state, gradients)
        if name == "twice":
            assert_norms(state.inner, expected(gradients, before, params, ()))
            state_only = state._replace(inner=())
            assert_norms(state_only, expected(gradients, before, params))
        else:
            assert_norms(state, expected(gradients, before, params))


@pytest.mark.slow
@needs_kernel
@pytest.mark.parametrize("name", ["adamw", "clipped", "int8", "average", "by path"])
def test_the_pass_stays_one_and_reads_nothing_again(name):
    tx, params = adamx.with_norms(MAKERS[name], *PATTERNS), tree(0)
    assert adamx.explain(tx, params).one_pass
    assert adamx.explain(tx, params).leaves == adamx.explain(MAKERS[name], params).leaves
    text = jitted(tx).lower(params, tx.init(params), params).as_text()
    assert text.count("@adamx_step") == 1
    bare = jitted(MAKERS[name]).lower(params, MAKERS[name].init(params), params).as_text()
    assert sums_of_leaves(text) == sums_of_leaves(bare)


def sums_of_leaves(text):
    """How often a program sums the elements of a leaf."""
    sums = re.findall(r"stablehlo\.reduce\(.*applies stablehlo\.add .*\(tensor<([0-9x]+)xf32>, tensor<f32>\)", text)
    return sum(np.prod([int(n) for n in shape.split("x")]) > 512 for shape in sums)


@pytest.mark.slow
@each_way
@pytest.mark.parametrize("name", ["clipped", "int8", "bfloat16", "nesterov"])
def test_the_step_itself_is_the_same(name, way):
    tx, plain, params, gradients = adamx.with_norms(MAKERS[name]), MAKERS[name], tree(0), tree(1)
    got, state = way(tx)(params, tx.init(params), gradients)
    wanted, inner = way(plain)(params, plain.init(params), gradients)
    if way is not composed:
        assert differing((got, state.inner), (wanted, inner)) == []
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), got, wanted)


@pytest.mark.slow
def test_complex_and_float64_leaves():
    params = {"kernel": jnp.full((30, 40), 3 + 4j), "head": {"kernel": jnp.ones(20_000)}}
    for way in WAYS.values():
        tx = adamx.with_norms(adamx.adamw(0.1))
        moved, state = way(tx)(params, tx.init(params), params)
        assert_norms(state, expected(params, params, moved, ()))


@pytest.mark.parametrize("size", [1e-30, 1e-18, 1e25])
def test_sizes_whose_squares_leave_float32(size):
    tx, params = adamx.with_norms(adamx.adamw(0.1)), {"w": jnp.ones(50_000)}
    gradients = {"w": jnp.full(50_000, size)}
    _, state = jitted(tx)(params, tx.init(params), gradients)
    if adamx.kernels.backend().name == "native":
        np.testing.assert_allclose(state.gradients["all"], norm(gradients), rtol=ROUNDED)
    _, state = jitted(tx, backend="xla")(params, tx.init(params), gradients)
    assert size < 1 or np.isinf(state.gradients["all"])


@pytest.mark.slow
def test_a_sum_over_millions_of_elements():
    tx, params = adamx.with_norms(adamx.adamw(1e-3)), {"w": jax.random.normal(jax.random.key(0), (2**24,)) + 1}
    moved, state = jitted(tx)(params, tx.init(params), params)
    assert_norms(state, expected(params, params, moved, ()), 1e-5)


def test_pallas_leaves_measured_leaves_to_xla():
    tx, params = adamx.adamw(0.1, **INT8), {"w": jax.ShapeDtypeStruct((512, 512), jnp.float32)}
    if adamx.explain(tx, params, "cuda").leaves[0].executor != "pallas":
        pytest.skip("no Pallas for this JAX")
    (leaf,) = adamx.explain(adamx.with_norms(tx), params, "cuda").leaves
    assert (leaf.executor, leaf.why) == ("xla", "XLA takes norms: this kernel sees tiles, not leaves")


def test_before_the_first_step_norms_are_zero():
    state = adamx.with_norms(adamx.adam(0.1), "b").init({"a": jnp.ones(2), "b": jnp.ones(2)})
    assert set(map(float, read_norms(state).values())) == {0.0}
    addresses = [x.unsafe_buffer_pointer() for x in read_norms(state).values()]
    assert len(set(addresses)) == 6  # or a step cannot donate them


def test_what_does_not_fit_is_told():
    params = {"kernel": jnp.ones(3)}
    with pytest.raises(ValueError, match="has the name of the norm over all leaves"):
        adamx.with_norms(adamx.adam(0.1), "all")
    with pytest.raises(ValueError, match="with_norms: '\\(' is not a regular expression"):
        adamx.with_norms(adamx.adam(0.1), "(")
    with pytest.raises(TypeError, match="with_norms takes regular expressions"):
        adamx.with_norms(adamx.adam(0.1), 3)
    with pytest.raises(ValueError, match="with_norms: no path matches 'bias'"):
        adamx.with_norms(adamx.adam(0.1), "bias").init(params)
    tx, other = adamx.with_norms(adamx.adam(0.1), "kernel"), adamx.with_norms(adamx.adam(0.1))
    with pytest.raises(ValueError, match="with_norms needs the parameters"):
        tx.update(params, tx.init(params))
    for state in (other.init(params), adamx.adam(0.1).init(params)):
        with pytest.raises(TypeError, match="NormsState of 'all', 'kernel'"):
            adamx.step(tx, params, state, params)
    behind = adamx.chain(adamx.with_norms(adamx.scale_by_adam()), adamx.scale_by_lr(0.1))
    with pytest.raises(ValueError, match=r"put it around the whole chain, adamx.with_norms\(adamx.chain"):
        adamx.step(behind, params, behind.init(params), params)
    with pytest.raises(TypeError, match="one NormsState in it, got tuple with no"):
        read_norms(adamx.adam(0.1).init(params))
    with pytest.raises(TypeError, match="one NormsState in it, got tuple with 2"):
        read_norms((other.init(params), other.init(params)))
