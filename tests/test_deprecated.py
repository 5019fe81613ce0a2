import inspect

import jax.numpy as jnp
import pytest

import adamx
from tests.backends import differing, jitted

PARAMS = {"w": jnp.ones((200, 200))}


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_the_fused_names_are_the_optimizers_and_warn(name):
    with pytest.warns(DeprecationWarning, match=f"adamx.fused_{name} is adamx.{name} since 0.2"):
        old = getattr(adamx, f"fused_{name}")(1e-2, b1=0.5, nu_dtype="bfloat16")
    new = getattr(adamx, name)(1e-2, b1=0.5, nu_dtype="bfloat16")
    got, expected = (jitted(tx)(PARAMS, tx.init(PARAMS), PARAMS) for tx in (old, new))
    assert differing(got, expected) == []
    signature = inspect.signature(getattr(adamx, f"fused_{name}"))
    assert list(signature.parameters) == list(inspect.signature(getattr(adamx, name)).parameters)


def test_the_backend_goes_on_to_the_step():
    with pytest.warns(DeprecationWarning, match="fused_adam"):
        tx = adamx.fused_adam(1e-2, backend="xla")
    assert "adamx_step" not in jitted(tx).lower(PARAMS, tx.init(PARAMS), PARAMS).as_text()
    with (
        pytest.warns(DeprecationWarning, match="fused_adam"),
        pytest.raises(ValueError, match=r'backend must be "auto" or "xla", got'),
    ):
        adamx.fused_adam(1e-2, backend="gpu")
