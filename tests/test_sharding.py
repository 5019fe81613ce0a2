"""Low-precision states over many devices, in a process of its own: the number of devices is fixed when JAX starts."""

import subprocess
import sys
from pathlib import Path


def test_sharded_equals_unsharded_to_the_bit():
    program = Path(__file__).with_name("sharded.py")
    result = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("equal") == 7
