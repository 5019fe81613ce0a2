"""Trains with dithered moments, is killed, resumes from an Orbax checkpoint, and ends with the same bits.

Every checkpoint carries the fingerprint of what was saved: Orbax restores flipped bits and other dtypes without a word.
Run it as `pip install orbax-checkpoint && python examples/resume_with_orbax.py`: it trains once to the end, once killed
by SIGKILL on the way and resumed, and compares. With `--folder F` it trains in F, from the newest checkpoint there.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

import adamx

EVERY = 5
TX = adamx.adamw(1e-2, mu_dtype="bfloat16", nu_dtype="bfloat16", weight_decay=0.01)


def init():
    in_, out = jax.random.split(jax.random.key(0))
    params = {"in": jax.random.normal(in_, (16, 128)) / 4, "out": jax.random.normal(out, (128, 1)) / 11}
    return params, TX.init(params)


@jax.jit
def train_step(params, state, step):
    """Batch and step are functions of the step's number: nothing else has to be saved."""
    x = jax.random.normal(jax.random.fold_in(jax.random.key(1), step), (64, 16))
    y = jnp.sin(x.sum(axis=1, keepdims=True))
    gradients = jax.grad(lambda p: jnp.mean((jnp.tanh(x @ p["in"]) @ p["out"] - y) ** 2))(params)
    return adamx.step(TX, gradients, state, params)


def restore(manager, step):
    """Parameters and state of a checkpoint, or an error if they are not what was saved."""
    params, state = jax.eval_shape(init)
    items = ocp.args.Composite(
        train=ocp.args.StandardRestore({"params": params, "state": state}), fingerprint=ocp.args.JsonRestore()
    )
    saved = manager.restore(step, args=items)
    state = adamx.interop.check_restored(TX, saved.train["state"], params)
    if adamx.digest.fingerprint(saved.train) != saved.fingerprint["sha256"]:
        raise ValueError(f"the checkpoint of step {step} is not what was saved")
    return saved.train["params"], state


def train(folder, steps):
    with ocp.CheckpointManager(Path(folder).resolve(), options=ocp.CheckpointManagerOptions(max_to_keep=3)) as manager:
        first = manager.latest_step() or 0
        params, state = restore(manager, first) if first else init()
        for step in range(first, steps):
            params, state = train_step(params, state, step)
            if (step + 1) % EVERY == 0:
                tree = {"params": params, "state": state}
                digest = ocp.args.JsonSave({"sha256": adamx.digest.fingerprint(tree)})
                items = ocp.args.Composite(train=ocp.args.StandardSave(tree), fingerprint=digest)
                manager.save(step + 1, args=items)
                print(f"step {step + 1}", flush=True)
    return params


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--folder", help="train here, from the newest checkpoint")
    options = parser.parse_args()
    if options.folder:
        print(adamx.digest.fingerprint(train(options.folder, options.steps)))
        return
    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as folder:
        expected = train(whole, options.steps)
        program = [sys.executable, __file__, "--folder", folder, "--steps", str(options.steps)]
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as child:
            for line in child.stdout:
                if line.strip() == f"step {options.steps // 2}":
                    child.send_signal(signal.SIGKILL)
                    print(f"killed after {line.strip()}")
        params = train(folder, options.steps)
        same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), params, expected)
        print(f"resumed; equal bits: {same}")
        assert all(jax.tree.leaves(same))


if __name__ == "__main__":
    main()
