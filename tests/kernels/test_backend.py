import subprocess
import sys

import pytest

import adamx
from adamx.kernels import native

WITHOUT_PALLAS = """
import sys
sys.modules["jax.experimental.pallas"] = None  # importing it raises
import jax.numpy as jnp, adamx
for platform in ("cuda", "rocm", "tpu"):
    print(adamx.kernels.backend(platform))
coded = adamx.storage.Int8(min_size=0)
tx, x = adamx.adam(0.1, mu_dtype=coded, nu_dtype=coded), jnp.ones((128, 128))
print(adamx.step(tx, x, tx.init(x), x)[0][0, 0].round(2))
"""


def test_on_cpus_it_is_the_native_library_or_why_not():
    assert adamx.kernels.backend() == adamx.kernels.backend("cpu") == native.backend()


@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_on_accelerators_it_is_pallas_or_why_not(platform):
    found = adamx.kernels.backend(platform)
    assert found.name in ("pallas", "xla")
    assert str(found) == f"{found.name}: {found.detail}"


def test_another_platform():
    with pytest.raises(ValueError, match=r'platform must be "cpu", "cuda", "rocm" or "tpu", got \'gpu\''):
        adamx.kernels.backend("gpu")


@pytest.mark.slow
def test_without_pallas_everything_works_through_xla():
    program = subprocess.run([sys.executable, "-c", WITHOUT_PALLAS], check=True, capture_output=True, text=True)
    *backends, value = program.stdout.splitlines()
    assert all(line.startswith("xla: Pallas cannot be imported") for line in backends)
    assert value == "0.9"
