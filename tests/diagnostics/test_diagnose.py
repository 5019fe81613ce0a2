import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx

PARAMS = {"encoder": [{"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}]}


def probed(**arguments):
    return optax.chain(
        adamx.scale_by_moments(),
        adamx.diagnostics.probe(0.1, **arguments),
        adamx.bias_correction(),
        adamx.scale_by_lr(0.1),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: tx,
        lambda tx: optax.chain(optax.clip_by_global_norm(1.0), tx),
        lambda tx: optax.MultiSteps(tx, 1),
        adamx.with_master_weights,
        lambda tx: adamx.skip_nonfinite(adamx.skip_nonfinite(tx)),
    ],
)
def test_finds_the_probe_wherever_it_stands(wrap):
    tx = wrap(probed())
    _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    found = adamx.diagnostics.diagnose(state)
    assert list(found) == ["encoder/0/bias", "encoder/0/kernel"]
    assert all(isinstance(x, float | int) for x in found["encoder/0/kernel"])


@pytest.mark.slow
def test_counts_skipped_steps():
    tx = adamx.skip_nonfinite(probed())
    _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    _, state = tx.update({"encoder": [{"kernel": jnp.full((2, 3), np.nan), "bias": jnp.ones(3)}]}, state, PARAMS)
    assert [m.skipped for m in adamx.diagnostics.diagnose(state).values()] == [1, 1]


def test_without_a_probe():
    with pytest.raises(TypeError, match=r"there is no ProbeState in this state: put adamx\.diagnostics\.probe"):
        adamx.diagnostics.diagnose(adamx.adam(0.1).init(PARAMS))
