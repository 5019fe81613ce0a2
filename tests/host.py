"""A program for a process of its own: states on one host device, parameters on another, beside the jitted step.

Run `python tests/host.py NAME...`, "adamw" say, or "bytes"; without names it checks all.
"""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"

import gc
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamx
from adamx.streaming import groups, stream

groups.GROUP = 2**15
HOST, FAR = jax.devices()
SHAPES = {"a": (100, 256), "b": (20_000,), "frozen": None, "small": (7,), "scalar": (), "c": (100, 300)}
INT8 = adamx.storage.Int8(64, 0)


def schedule(count):
    """The barrier keeps XLA from multiplying its constants by those of weight decay first, in the jitted step."""
    return jax.lax.optimization_barrier(0.01 * (1 - count / 9))


def adamw(**arguments):
    return adamx.adamw(schedule, 0.5, 0.5, weight_decay=0.1, mask=adamx.not_matching("b$"), **arguments)


def clipped(tx):
    return adamx.chain(adamx.clip_by_global_norm(1.0), tx)


TRANSFORMATIONS = {  # the optimizer, the dtype of parameters, and whether it steps in parts
    "adamw": (adamw(), "float32", True),
    "clipped": (clipped(adamw()), "float32", True),
    "guarded": (adamx.skip_nonfinite(clipped(adamw())), "float32", True),
    "guarded masters": (adamx.skip_nonfinite(adamx.with_master_weights(clipped(adamw()))), "bfloat16", True),
    "float16 masters": (adamx.with_master_weights(adamw()), "float16", True),
    "stochastic rounding": (adamx.with_stochastic_rounding(clipped(adamw())), "bfloat16", True),
    "int8": (adamw(mu_dtype=INT8, nu_dtype=INT8), "float32", True),
    "dithered": (adamw(mu_dtype="bfloat16", nu_dtype="bfloat16"), "float32", True),
    "optax": (optax.adam(0.01), "float32", False),
}


def tree(seed, dtype="float32", device=FAR):
    random = np.random.default_rng(seed)
    return {
        name: None if shape is None else jax.device_put(random.standard_normal(shape).astype(jnp.dtype(dtype)), device)
        for name, shape in SHAPES.items()
    }


def on(device, tree):
    return all(x.devices() == {device} for x in jax.tree.leaves(tree))


def check(name):
    """Bits and places after three steps, the second with a NaN where there is a guard; the way that they took."""
    tx, dtype, parts = TRANSFORMATIONS[name]
    offloaded, taken = adamx.on_host(tx), []
    step = jax.jit(lambda params, state, g: adamx.step(tx, g, state, params), donate_argnums=(0, 1))
    params, expected = tree(0, dtype), tree(0, dtype, HOST)
    state, reference = offloaded.init(params), jax.jit(tx.init)(expected)
    assert on(HOST, state)
    place = stream.Stream.gradients
    stream.Stream.gradients = lambda *given: (taken.append(1), place(*given))[1]
    for t in range(3):
        gradients = tree(t + 1, dtype)
        if t == 1 and "guarded" in name:
            gradients["c"] = gradients["c"].at[3, 3].set(jnp.nan)
        params, state = adamx.step(offloaded, gradients, state, params)
        expected, reference = step(expected, reference, jax.device_put(gradients, HOST))
    stream.Stream.gradients = place
    assert len(taken) == 3 * parts * 2, f"{name}: {len(taken)} groups"
    assert on(FAR, params)
    assert on(HOST, state)
    assert jax.tree.structure(state) == jax.tree.structure(reference)
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path((params, state)), jax.tree.leaves((expected, reference)), strict=True
    ):
        assert x.dtype == y.dtype
        same = np.asarray(x).tobytes() == np.asarray(y).tobytes()
        assert same, f"{name}: {jax.tree_util.keystr(path)} differs by {np.max(np.abs(np.asarray(x) - np.asarray(y)))}"


def held(device):
    gc.collect()
    return sum(x.nbytes for x in jax.live_arrays() if x.devices() == {device} and not x.is_deleted())


def check_bytes():
    """Parameters and gradients are all that the far device holds, before, in and after a step."""
    tx = adamx.on_host(clipped(adamw()))
    params = tree(0)
    size = sum(x.nbytes for x in jax.tree.leaves(params))
    state = tx.init(params)
    assert held(FAR) == size
    seen, back = [], stream.Stream.up

    def up(*given):
        moved = back(*given)
        seen.append(held(FAR))
        return moved

    stream.Stream.up = up
    for t in range(3):
        gradients = tree(t + 1)
        params, state = adamx.step(tx, gradients, state, params)
    stream.Stream.up = back
    assert len(seen) == 6
    assert max(seen) <= 2 * size + 200, f"{max(seen)} bytes on the device of {size} of parameters"
    assert held(FAR) <= 2 * size + 200
    assert held(HOST) <= 3 * size + 200, f"{held(HOST)} bytes on the host: moments and a copy are {3 * size}"


def check_refusals():
    """A state that lies elsewhere."""
    tx, params = adamx.on_host(adamx.adam(0.1)), {"layer": {"w": jnp.ones((4, 4))}}
    state = jax.device_put(tx.init(params), FAR)
    try:
        adamx.step(tx, params, state, params)
        found = "nothing was raised"
    except ValueError as error:
        found = str(error)
    assert "move it there, jax.device_put(state" in found, found


def main():
    """Runs the checks that the command line asks for."""
    others = {"bytes": check_bytes, "refusals": check_refusals}
    for name in sys.argv[1:] or [*TRANSFORMATIONS, *others]:
        others[name]() if name in others else check(name)
        print(f"{name} ok", flush=True)


if __name__ == "__main__":
    main()
