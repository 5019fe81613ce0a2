import jax
import jax.numpy as jnp
import pytest

import adamx
from adamx.kernels.backend import accelerator_kernel
from tests.backends import needs_kernel

PARAMS = {"large": jnp.zeros((300, 300)), "wide": jnp.zeros((200, 200), jnp.complex64), "tiny": jnp.zeros(3)}


@pytest.fixture(autouse=True)
def every_leaf_is_worthwhile():
    """Here tiny leaves are left to XLA, as users see it."""


@needs_kernel
def test_which_way_each_leaf_goes_and_why():
    found = adamx.explain(adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adamw(1e-3)), PARAMS)
    assert found.one_pass
    assert found.why == ""
    assert [(leaf.path, leaf.executor, leaf.why) for leaf in found.leaves] == [
        ("large", "native", ""),
        ("tiny", "xla", "small: XLA's own loop is as fast"),
        ("wide", "xla", "the kernel does not take this shape, dtype or storage"),
    ]
    assert found.state_bytes == adamx.state_bytes(adamx.adamw(1e-3).init(PARAMS)).total
    header, *rows, last = str(found).splitlines()
    assert header.split()[:5] == ["leaf", "shape", "dtype", "moments", "executor"]
    assert rows[0].split() == ["large", "300x300", "float32", "float32", "native"]
    assert last.startswith("one pass over memory; ")


@needs_kernel
def test_int4_in_odd_rows_is_told():
    four = adamx.storage.Int4(min_size=0)
    found = adamx.explain(
        adamx.adam(1e-3, mu_dtype=four, nu_dtype=four), {"even": jnp.zeros((3, 64)), "odd": jnp.zeros((3, 65))}
    )
    assert [(leaf.executor, leaf.why, leaf.moments) for leaf in found.leaves] == [
        ("native", "", "int4"),
        ("xla", "int4 codes: with an odd last axis rows end within a byte", "int4"),
    ]


@needs_kernel
def test_a_beta_close_to_one_is_told():
    found = adamx.explain(adamx.adam(1e-3, b2=0.999999, precise=True), {"w": jnp.zeros((300, 300))})
    assert found.leaves[0].why == "β2 this close to 1 dithers the sum of v"


def test_shapes_do_and_nothing_is_computed():
    shapes = jax.eval_shape(lambda: PARAMS)
    huge = {"w": jax.ShapeDtypeStruct((1 << 20, 1 << 20), jnp.float32)}
    assert adamx.explain(adamx.adam(1e-3), shapes) == adamx.explain(adamx.adam(1e-3), PARAMS)
    assert adamx.explain(adamx.adam(1e-3), huge).state_bytes == 2**43 + 4


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms(platform):
    found = adamx.explain(adamx.adam(1e-3), {"w": jnp.zeros((300, 300))}, platform)
    assert (found.one_pass, found.leaves[0].executor) == (True, "xla")
    if accelerator_kernel(platform)[0]:
        assert found.leaves[0].why == "float32 moments: XLA's own loop is one pass"
    with pytest.raises(ValueError, match="platform must be"):
        adamx.explain(adamx.adam(1e-3), PARAMS, "gpu")


@pytest.mark.slow
def test_what_a_training_step_does_not_donate():
    tx, params = adamx.adamw(1e-3), {"w": jnp.ones((64, 32)), "b": jnp.ones(32, jnp.bfloat16)}
    state = tx.init(params)

    def step(params, state, gradients, batch):
        return *adamx.step(tx, gradients, state, params), batch.sum()

    given, both = (params, state, params, jnp.ones((64, 32))), 64 * 32 * 4 * 3 + 32 * 2 + 32 * 4 * 2 + 4
    for donated, missing in (((), both), ((0, 1), 0), ((1,), 64 * 32 * 4 + 32 * 2)):
        lowered = jax.jit(step, donate_argnums=donated).lower(*given)
        found = adamx.explain(tx, params, step=lowered)
        assert found.undonated == adamx.explain(tx, params, step=lowered.compile()).undonated == missing
        assert ("are not donated: XLA copies" in str(found)) == (missing > 0)
    with pytest.raises(TypeError, match=r"step must be a lowered step, train_step\.lower\(params"):
        adamx.explain(tx, params, step=jax.jit(step))
    keyed = jax.jit(lambda params, state, key: (params, state), donate_argnums=(0, 1, 2))
    assert adamx.explain(tx, params, step=keyed.lower(params, state, jax.random.key(0))).undonated == 0
    alone = adamx.explain(tx, params)
    assert alone.undonated is None
    assert "donate" not in str(alone)
