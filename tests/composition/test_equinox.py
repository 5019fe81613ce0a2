"""Models of Equinox, whose leaves are functions and strings besides arrays."""

import equinox
import jax
import pytest

import adamx

MODEL = equinox.nn.MLP(2, 2, 4, 1, key=jax.random.key(0))
FILTERED = equinox.filter(MODEL, equinox.is_inexact_array)
FILTER = r"activation .*of an Equinox model pass eqx\.filter\(model, eqx\.is_inexact_array\)"


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        adamx.adam,
        adamx.adamw,
        adamx.mars,
        lambda rate: adamx.with_master_weights(adamx.adam(rate)),
        lambda rate: adamx.skip_nonfinite(adamx.adamw(rate)),
    ],
)
def test_an_unfiltered_model_of_equinox(make):
    tx = make(1e-3)
    state = tx.init(FILTERED)
    for wrong in (
        lambda: tx.init(MODEL),
        lambda: adamx.step(tx, FILTERED, state, MODEL),
        lambda: tx.update(MODEL, state, FILTERED),
    ):
        with pytest.raises((TypeError, ValueError), match=FILTER):
            wrong()
    assert adamx.step(tx, FILTERED, state, FILTERED)[0].activation is None
