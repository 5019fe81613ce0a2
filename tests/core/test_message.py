import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.core.message import InfinityMoments

PARAMS = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
GRADIENTS = {"w": jnp.array([0.1, -0.3]), "b": jnp.array(0.7)}
HINT = r"bias_correction.*put other transformations before scale_by_moments\(\) or after.*uncorrected"


def emit(gradients):
    stage = adamx.scale_by_moments()
    return stage.update(gradients, stage.init(gradients))[0]


def one_update(*stages, params=PARAMS, gradients=GRADIENTS):
    tx = optax.chain(*stages)
    return tx.update(gradients, tx.init(params), params)


def bits(tree):
    return jax.tree.map(lambda x: (x.dtype, np.asarray(x).tobytes()), tree)


MISUSES = {
    "map": lambda moments: jax.tree.map(jnp.sin, moments),
    "map behind an array": lambda moments: jax.tree.map(jnp.add, jnp.ones(2), moments),
    "leaves": jax.tree.leaves,
    "paths": jax.tree_util.tree_leaves_with_path,
    "into jit": jax.jit(lambda moments: moments.count),
    "out of jit": lambda moments: jax.jit(lambda: moments)(),
    "out of eval_shape": lambda moments: jax.eval_shape(lambda: moments),
    "out of vmap": lambda moments: jax.vmap(emit)(jnp.ones((3, 2))),
    "out of grad": lambda moments: jax.grad(emit)(jnp.ones(2)),
    "scan": lambda moments: jax.lax.scan(lambda carry, x: (carry, x), moments, None, 2),
    "device_put": jax.device_put,
    "np.asarray": np.asarray,
    "jnp.asarray": jnp.asarray,
    "jnp.sum": jnp.sum,
    "iteration": list,
    "unpacking": lambda moments: (*moments,),
    "len": len,
    "index": lambda moments: moments[0],
    "key": lambda moments: moments["w"],
    "-m": lambda moments: -moments,
    "abs": abs,
    "m + 1": lambda moments: moments + 1,
    "1 + m": lambda moments: 1 + moments,
    "m - 1": lambda moments: moments - 1,
    "1 - m": lambda moments: 1 - moments,
    "m * 2": lambda moments: moments * 2,
    "2 * m": lambda moments: 2 * moments,
    "m / 2": lambda moments: moments / 2,
    "2 / m": lambda moments: 2 / moments,
    "m ** 2": lambda moments: moments**2,
    "array * m": lambda moments: jnp.ones(2) * moments,
    "NumPy array * m": lambda moments: np.ones(2) * moments,
}


@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES)
def test_moments_are_no_tree_and_no_array(misuse):
    with pytest.raises(TypeError, match=HINT):
        misuse(emit(jnp.ones(2)))


def test_applied_to_an_array_they_say_what_is_missing():
    with pytest.raises(TypeError, match=HINT):
        optax.apply_updates(jnp.ones(2), emit(jnp.ones(2)))


@pytest.mark.parametrize("params", [PARAMS, [jnp.ones(2)], (jnp.ones(2), None)], ids=["dict", "list", "tuple"])
def test_applied_to_a_tree_they_are_named(params):
    with pytest.raises(ValueError, match="Moments"):
        optax.apply_updates(params, emit(params))


WITHOUT_STAGE_2 = {
    "scale_by_lr": adamx.scale_by_lr(0.1),
    "scale_by_lr with a schedule": adamx.scale_by_lr(optax.constant_schedule(0.1)),
    "add_decayed_weights": adamx.add_decayed_weights(0.1),
    "add_decayed_weights with a mask": adamx.add_decayed_weights(0.1, {"w": True, "b": False}),
    "optax.scale": optax.scale(0.1),
    "optax.clip_by_global_norm": optax.clip_by_global_norm(1.0),
    "optax.add_decayed_weights": optax.add_decayed_weights(0.1),
    "scale_by_moments again": adamx.scale_by_moments(),
}


@pytest.mark.parametrize("stage", WITHOUT_STAGE_2.values(), ids=WITHOUT_STAGE_2)
def test_without_stage_2_the_next_stage_raises_the_hint(stage):
    with pytest.raises(TypeError, match=HINT):
        one_update(adamx.scale_by_moments(), stage)


STAGES_2 = {
    "bias_correction()": adamx.bias_correction(),
    "uncorrected()": adamx.uncorrected(),
    "nesterov()": adamx.nesterov(),
    "on_first_moment(tx)": adamx.on_first_moment(optax.clip(1.0)),
}


@pytest.mark.parametrize("name", STAGES_2)
@pytest.mark.parametrize("before", [optax.identity(), adamx.scale_by_adam()], ids=["gradients", "direction"])
def test_a_stage_that_gets_no_moments_names_itself_and_stage_1(name, before):
    with pytest.raises(TypeError) as error:
        one_update(before, STAGES_2[name])
    message = str(error.value)
    assert message.startswith(f"{name} takes the Moments that scale_by_moments emits, got dict")
    assert "optax.chain(adamx.scale_by_moments(), " in message


def test_as_dict_is_a_plain_tree_also_outside_jit():
    seen, kept = emit(GRADIENTS), jax.jit(lambda g: emit(g).as_dict())(GRADIENTS)
    assert list(seen.as_dict()) == [
        field.name for field in dataclasses.fields(adamx.Moments) if field.name != "nu_codec"
    ]
    assert bits([kept[name] for name in ("count", "gradients", "mu", "nu")]) == bits(
        [seen.count, seen.gradients, seen.mu, seen.nu]
    )
    assert kept["b2"] == np.float32(0.999)


def test_replace_changes_a_copy():
    moments = emit(GRADIENTS)
    changed = moments.replace(mu=GRADIENTS)
    assert changed.mu is GRADIENTS
    assert changed.nu is moments.nu
    assert bits(moments.mu) != bits(GRADIENTS)


def test_a_stage_of_your_own_replaces_what_it_means():
    double = optax.stateless(lambda moments, _: moments.replace(mu=jax.tree.map(lambda m: 2 * m, moments.mu)))
    plain, _ = one_update(adamx.scale_by_moments(), adamx.bias_correction())
    doubled, _ = one_update(adamx.scale_by_moments(), double, adamx.bias_correction())
    assert bits(doubled) == bits(jax.tree.map(lambda u: 2 * u, plain))


def test_on_first_moment_changes_m_alone():
    moments, clip = emit(GRADIENTS), adamx.on_first_moment(optax.clip(0.02))
    clipped, _ = clip.update(moments, clip.init(PARAMS), PARAMS)
    assert bits(clipped.mu) == bits(jax.tree.map(lambda m: jnp.clip(m, -0.02, 0.02), moments.mu))
    assert bits(clipped.mu) != bits(moments.mu)
    assert bits([clipped.count, clipped.gradients, clipped.nu]) == bits([moments.count, moments.gradients, moments.nu])
    assert (clipped.mu_weight, clipped.nu_weight) == (moments.mu_weight, moments.nu_weight)


def test_on_first_moment_hands_over_parameters_and_extra_arguments():
    def update(updates, state, params, *, value, **extra):
        return jax.tree.map(lambda m, p: value * m + p, updates, params), state

    tx = adamx.on_first_moment(optax.GradientTransformationExtraArgs(optax.identity().init, update))
    moments = emit(GRADIENTS)
    changed, _ = tx.update(moments, tx.init(PARAMS), PARAMS, value=2.0, unknown="any")
    assert bits(changed.mu) == bits(jax.tree.map(lambda m, p: 2.0 * m + p, moments.mu, PARAMS))


@pytest.mark.slow
def test_on_first_moment_keeps_the_state_of_its_transformation():
    summed = adamx.on_first_moment(optax.trace(0.5))
    tx = optax.chain(adamx.scale_by_moments(), summed, adamx.bias_correction())
    state, step, trace = tx.init(PARAMS), jax.jit(tx.update), jax.tree.map(jnp.zeros_like, PARAMS)
    assert bits(state[1]) == bits(optax.trace(0.5).init(PARAMS))
    for t in range(3):
        _, state = step(jax.tree.map(lambda g: g * (t + 1), GRADIENTS), state, PARAMS)
        trace = jax.tree.map(lambda m, s: m + 0.5 * s, state[0].mu, trace)
        assert bits(state[1].trace) == bits(trace)
    stream = jax.tree.map(lambda g: jnp.stack([g, g * 2, g * 3]), GRADIENTS)
    scanned, _ = jax.lax.scan(lambda s, g: (tx.update(g, s, PARAMS)[1], None), tx.init(PARAMS), stream)
    assert bits(scanned) == bits(state)


@pytest.mark.parametrize("kind", [adamx.Moments, InfinityMoments])
def test_a_message_of_numbers_is_corrected_by_its_weights(kind):
    g = {"w": jnp.asarray([0.5, -2.0])}
    moments = kind(jnp.asarray(3), g, g, g, 0.5, 0.75, 1 - 0.5**3, jnp.float32(1 - 0.75**3))
    np.testing.assert_allclose(moments.m_hat()["w"], np.array([0.5, -2.0]) / 0.875, rtol=1e-6)
    np.testing.assert_allclose(moments.v_hat()["w"], np.array([0.5, -2.0]) / 0.578125, rtol=1e-6)
    emitted = emit(g)
    again = adamx.Moments(**emitted.as_dict())
    np.testing.assert_allclose(again.m_hat()["w"], emitted.m_hat()["w"], rtol=1e-6)
    np.testing.assert_allclose(again.v_hat()["w"], emitted.v_hat()["w"], rtol=1e-6)


class AbsoluteMoments(adamx.Message):
    power, second, quotient = 1.0, "a v that averages |g|", "over_mean()"


def test_a_message_of_ones_own_goes_to_its_own_stage_alone():
    one = jnp.ones(2)
    emit = adamx.between("emit()", lambda m: AbsoluteMoments(m.count, m.gradients, one, 4 * one, 0.9, 0.9, 1.0, 1.0))
    over_mean = adamx.quotient("over_mean()", lambda m_hat, v_hat: m_hat / v_hat, kind=AbsoluteMoments)
    chains = [
        optax.chain(adamx.scale_by_moments(), emit, stage)
        for stage in (over_mean, adamx.bias_correction(), adamx.optimizers.rectified_bias_correction())
    ]
    np.testing.assert_array_equal(chains[0].update(one, chains[0].init(one))[0], 0.25)
    for tx in chains[1:]:
        with pytest.raises(TypeError, match=r"got AbsoluteMoments with a v that averages \|g\|: .*over_mean\(\)"):
            tx.update(one, tx.init(one))
    with pytest.raises(TypeError, match="Moments is the message"):
        jax.tree.leaves(AbsoluteMoments(0, one, one, one, 0.9, 0.9, 1.0, 1.0))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float8_e4m3fn])
@pytest.mark.parametrize("name", ["mu", "nu"])
def test_moments_of_half_precision_raise(name, dtype):
    one = {"w": jnp.ones(2)}
    given = {"mu": one, "nu": one, name: {"w": jnp.ones(2, dtype)}}
    with pytest.raises(
        TypeError, match=rf"Moments: {name} at w has dtype {jnp.dtype(dtype).name}: moments are in comp"
    ):
        adamx.Moments(jnp.int32(1), one, given["mu"], given["nu"], 0.9, 0.9, 1.0, 1.0)
