"""Flax's optimizer and train state with `adamx.step` inside, against Flax's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from flax.training import train_state

import adamx
import adamx.flax
from adamx.variables import bare
from tests.backends import needs_kernel

INT8 = adamx.storage.Int8(64, 0)
OPTIMIZERS = {
    "clip, adamw": lambda: adamx.chain(
        adamx.clip_by_global_norm(1.0), adamx.adamw(0.01, eps=1e-3, mask=adamx.not_matching("bias", "scale"))
    ),
    "guarded": lambda: adamx.skip_nonfinite(adamx.adam(0.01, eps=1e-3)),
    "int8": lambda: adamx.adam(0.01, 0.5, 0.5, 1e-3, mu_dtype=INT8, nu_dtype=INT8),
    "composed": lambda: adamx.amsgrad(0.01, eps=1e-3),
}


def assert_close(one, other):
    """Up to rounding. A last bit may be the next code of a dithered moment, in one of some ten thousand elements."""
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        assert a.dtype == b.dtype
        if jnp.issubdtype(a.dtype, jnp.floating):
            np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3)
            assert np.mean(~np.isclose(a, b, rtol=1e-4, atol=1e-5)) <= 1e-4


class Network(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.first, self.norm = nnx.Linear(64, 512, use_bias=False, rngs=rngs), nnx.BatchNorm(512, rngs=rngs)
        self.second = nnx.Linear(512, 1, rngs=rngs)

    def __call__(self, x):
        return self.second(jax.nn.relu(self.norm(self.first(x))))


def batch(t):
    return jnp.asarray(np.random.default_rng(t).standard_normal((16, 64)), jnp.float32)


def loss(model, x):
    return jnp.mean((model(x) - x[:, :1]) ** 2)


@nnx.jit
def train_step(model, optimizer, x):
    optimizer.update(model, nnx.grad(loss)(model, x))


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_nnx_trains_as_with_the_optimizer_of_flax(name):
    ends = []
    for kind in (adamx.flax.Optimizer, nnx.Optimizer):
        model = Network()
        optimizer = kind(model, OPTIMIZERS[name](), wrt=nnx.Param)
        for t in range(4):
            train_step(model, optimizer, batch(t))
        assert int(optimizer.step[...] if hasattr(optimizer.step, "__getitem__") else optimizer.step.value) == 4
        ends.append((nnx.state(model), optimizer.opt_state))
    assert_close(*ends)


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x, train=True):
        x = linen.BatchNorm(use_running_average=not train)(linen.Dense(512, use_bias=False)(x))
        return linen.Dense(1)(jax.nn.relu(x))


class WithStatistics(adamx.flax.TrainState):
    batch_stats: dict


class FlaxWithStatistics(train_state.TrainState):
    batch_stats: dict


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_linen_trains_as_with_the_train_state_of_flax(name):
    network = Linen()
    variables = network.init(jax.random.key(0), batch(0))

    @jax.jit
    def train(state, x):
        def loss(params):
            out, updated = state.apply_fn(
                {"params": params, "batch_stats": state.batch_stats}, x, mutable="batch_stats"
            )
            return jnp.mean((out - x[:, :1]) ** 2), updated["batch_stats"]

        gradients, statistics = jax.grad(loss, has_aux=True)(state.params)
        return state.apply_gradients(grads=gradients, batch_stats=statistics)

    ends, tx = [], OPTIMIZERS[name]()
    for kind in (WithStatistics, FlaxWithStatistics):
        state = kind.create(apply_fn=network.apply, tx=tx, **variables)
        for t in range(4):
            state = train(state, batch(t))
        assert int(state.step) == 4
        ends.append((state.params, state.batch_stats, state.opt_state))
    assert_close(*ends)


@needs_kernel
def test_the_step_is_one_pass():
    model = Network()
    optimizer = adamx.flax.Optimizer(model, OPTIMIZERS["clip, adamw"](), wrt=nnx.Param)

    def program(graph, state, x):
        model, optimizer = nnx.merge(graph, state)
        train_step(model, optimizer, x)
        return nnx.state((model, optimizer))

    text = jax.jit(program, static_argnums=0).lower(*nnx.split((model, optimizer)), batch(0)).as_text()
    assert text.count("@adamx_step") == 1


def test_what_takes_its_gradient_as_its_value_does():
    params = {"params": {"w": jnp.ones(3)}, train_state.OVERWRITE_WITH_GRADIENT: {"scale": jnp.ones(1)}}
    state = adamx.flax.TrainState.create(apply_fn=None, params=params, tx=adamx.adam(0.1))
    gradients = {"params": {"w": jnp.ones(3)}, train_state.OVERWRITE_WITH_GRADIENT: {"scale": jnp.full(1, 7.0)}}
    after = state.apply_gradients(grads=gradients).params
    assert float(after[train_state.OVERWRITE_WITH_GRADIENT]["scale"][0]) == 7.0
    np.testing.assert_allclose(after["params"]["w"], 0.9, rtol=1e-5)


def test_a_state_from_elsewhere_goes_on_in_nnx():
    ends = []
    for moved in (False, True):
        model, tx = Network(), adamx.adamw(0.01)
        optimizer = adamx.flax.Optimizer(model, tx, wrt=nnx.Param)
        for t in range(4):
            if t == 2 and moved:
                state = jax.tree.map(np.asarray, bare(optimizer.opt_state))
                optimizer = adamx.flax.Optimizer(model, tx, wrt=nnx.Param)
                optimizer.set_state(state)
            train_step(model, optimizer, batch(t))
        ends.append((nnx.state(model), optimizer.opt_state))
    for a, b in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_state_that_does_not_fit_raises():
    model, tx = nnx.Linear(2, 1, rngs=nnx.Rngs(0)), adamx.adam(0.01)
    optimizer, params = adamx.flax.Optimizer(model, tx, wrt=nnx.Param), nnx.state(model, nnx.Param)
    state = bare(tx.init(params))
    for wrong in (state[:1], jax.tree.map(lambda x: x[None], state), jax.tree.map(lambda x: x.astype("int8"), state)):
        with pytest.raises(ValueError, match=r"the state is not that of the optimizer: .*restore_as"):
            optimizer.set_state(wrong)
    optimizer.opt_state = state
    with pytest.raises(TypeError, match=r"plain tree of arrays: put it into the optimizer by set_state\(state\)"):
        optimizer.update(model, nnx.state(model, nnx.Param))
