"""jax.export: a training step becomes bytes, and a fresh process without adamx runs it.

python examples/export_step.py
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import adamx

FRESH = """
import sys
import jax, numpy as np
from jax import export
folder = sys.argv[1]
step = export.deserialize(open(f"{folder}/step.bin", "rb").read())
arrays = [np.load(f"{folder}/{i}.npy") for i in range(len(step.in_avals))]
for _ in range(100):
    arrays = [np.asarray(a) for a in step.call(*arrays)]
assert "adamx" not in sys.modules
np.save(f"{folder}/out.npy", arrays[0])
"""

tx = adamx.adamw(1e-2)
x = jax.random.normal(jax.random.key(0), (64, 8))
y = jnp.sin(x.sum(1))
params = jnp.zeros(8)
carry, treedef = jax.tree.flatten((params, tx.init(params)))


@jax.jit
def step(*arrays):
    """One step on flat arrays, which need no class of adamx on the other side."""
    params, state = treedef.unflatten(arrays)
    gradient = jax.grad(lambda p: jnp.mean((jnp.tanh(x @ p) - y) ** 2))(params)
    return jax.tree.leaves(adamx.step(tx, gradient, state, params))


with tempfile.TemporaryDirectory() as folder:
    exported = jax.export.export(step)(*carry)
    Path(folder, "step.bin").write_bytes(exported.serialize())
    for i, array in enumerate(carry):
        np.save(Path(folder, f"{i}.npy"), np.asarray(array))
    subprocess.run([sys.executable, "-c", FRESH, folder], check=True)
    there = np.load(Path(folder, "out.npy"))

for _ in range(100):
    carry = step(*carry)
print(f"{len(exported.mlir_module())} characters of StableHLO for {', '.join(exported.platforms)}")
print(f"100 steps here and there: largest difference {np.abs(there - np.asarray(carry[0])).max()}")
assert (there == np.asarray(carry[0])).all()
