"""Float64 for a file of laws; a fixture of the module, because hypothesis runs many examples in one test."""

import jax
import pytest


@pytest.fixture(scope="module")
def float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)
