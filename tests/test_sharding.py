"""Low-precision states over many devices, in a process of its own: the number of devices is fixed when JAX starts."""

import subprocess
import sys
from pathlib import Path

import pytest


def equal(*names):
    program = Path(__file__).with_name("sharded.py")
    result = subprocess.run([sys.executable, program, *names], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout.count("equal")


@pytest.mark.slow
def test_sharded_equals_unsharded_to_the_bit():
    assert equal("fused int8") == 1


@pytest.mark.slow
def test_sharded_equals_unsharded_to_the_bit_for_every_transformation():
    assert equal() == 10
