"""Every storage and wrapper on the device, against the same on the CPU of this process, and against optax.

Each step starts from what `update` and `apply_updates` left on the CPU, so that differences do not add up. Gradients
have 8 digits, and β1 = β2 = 1/2 except where a case says otherwise: averages are then rounded once in any order of
operations, so that codes may differ only where scales do.
"""

import concurrent.futures
import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from on_gpu.differences import of_steps
from on_gpu.record import Record
from workloads import update_and_apply

import adamx
from adamx.testing import compare

Tree = Any

SMALL = {"odd": (33, 7), "deep": (2, 3, 128)}
SHAPES = {
    **{"scalar": (), "odd": (33, 7), "empty": (0, 4), "vector": (4500,), "ragged": (130, 200)},
    **{"deep": (3, 48, 256), "matrix": (256, 512)},
}
STEPS = 3
RUN_IN_QUICK = ("float32", "int8", "float8_e4m3fn", "all of them, int8")
"""The other cases are only traced there."""
INT8 = adamx.storage.Int8(min_size=0)
BYTE = {"mu_dtype": INT8, "nu_dtype": INT8}
NEAREST = adamx.storage.Float("bfloat16", stochastic=False)
STORAGES: dict[str, dict[str, Any]] = {
    "float32": {},
    "int8": BYTE,
    "bfloat16": {"mu_dtype": "bfloat16", "nu_dtype": "bfloat16"},
    "bfloat16 m": {"mu_dtype": "bfloat16"},
    "bfloat16 to nearest": {"mu_dtype": NEAREST, "nu_dtype": NEAREST},
    "float16": {"mu_dtype": "float16", "nu_dtype": "float16"},
    "float8_e4m3fn": {"mu_dtype": "float8_e4m3fn", "nu_dtype": "float8_e4m3fn"},
    "float8_e5m2": {"mu_dtype": "float8_e5m2", "nu_dtype": "float8_e5m2"},
    "bfloat16 m, int8 v": {"mu_dtype": "bfloat16", "nu_dtype": INT8},
    "float32 m, int8 v": {"nu_dtype": INT8},
    "int8 in blocks of 64": dict.fromkeys(("mu_dtype", "nu_dtype"), adamx.storage.Int8(64, 0)),
    "float32, default betas": {"b1": 0.9, "b2": 0.999},
    "int8, default betas": {"b1": 0.9, "b2": 0.999, **BYTE},
}


class Case(NamedTuple):
    """A transformation, the dtype of its parameters, and whether the second gradient has a NaN."""

    tx: optax.GradientTransformation
    dtype: str = "float32"
    nan: bool = False


def rule(make: Callable[..., Any] = adamx.adamw, **arguments: Any) -> optax.GradientTransformation:
    """With weight decay, if nothing else is asked for."""
    decay = {"weight_decay": 0.1} if make is adamx.adamw else {}
    return make(1e-2, **{"b1": 0.5, "b2": 0.5, **decay, **arguments})


def cases() -> dict[str, Callable[[], Case]]:
    """All by name, those first that the kernel and the storages are in."""
    found = {name: lambda arguments=arguments: Case(rule(**arguments)) for name, arguments in STORAGES.items()}
    clipped = functools.partial(adamx.chain, adamx.clip_by_global_norm(1.0))
    master, dithered = adamx.with_master_weights, adamx.with_stochastic_rounding
    wrapped: dict[str, Callable[..., Case]] = {
        "master weights": lambda **how: Case(master(rule(**how)), "bfloat16"),
        "stochastic rounding": lambda **how: Case(dithered(rule(**how)), "bfloat16"),
        "skip_nonfinite": lambda **how: Case(adamx.skip_nonfinite(rule(**how)), nan=True),
        "chain with a clip": lambda **how: Case(clipped(rule(**how))),
        "scale_by_path": lambda **how: Case(adamx.chain(rule(**how), adamx.scale_by_path({"deep": 0.5}))),
        "accumulate": lambda **how: Case(adamx.accumulate(rule(**how), 2)),
        "with_ema": lambda **how: Case(adamx.with_ema(rule(**how), 0.9)),
        "precise": lambda **how: Case(rule(adamx.adam, precise=True, **how)),
        "nesterov": lambda **how: Case(rule(adamx.adam, nesterov=True, **how)),
        "bfloat16 parameters": lambda **how: Case(rule(**how), "bfloat16"),
        "all of them": lambda **how: Case(adamx.skip_nonfinite(master(clipped(rule(**how)))), "bfloat16", nan=True),
    }
    found |= {f"{name}, int8": functools.partial(make, **BYTE) for name, make in wrapped.items()}
    plain = ("master weights", "stochastic rounding", "chain with a clip", "nesterov")
    return found | {f"{name}, float32": wrapped[name] for name in plain}


def tree(seed: int, shapes: dict[str, tuple[int, ...]], dtype: str, scale: float = 1.0) -> Tree:
    """Normal numbers of 8 digits, every third one shrunk by up to 10^9, every seventh one 0."""
    random = np.random.default_rng(seed)

    def leaf(shape: tuple[int, ...]) -> Any:
        x = scale * random.standard_normal(shape)
        x *= np.where(random.random(shape) < 1 / 3, 10 ** random.uniform(-9, 0, shape), 1)
        return np.asarray(np.where(random.random(shape) < 1 / 7, 0, x), jnp.bfloat16).astype(jnp.dtype(dtype))

    return {name: leaf(shape) for name, shape in shapes.items()}


def steps_of(tx: optax.GradientTransformation) -> dict[str, Any]:
    """The three ways to step, compiled, from (parameters, state, gradients)."""

    def by(backend: str) -> Any:
        return jax.jit(lambda params, state, g: adamx.step(tx, g, state, params, backend=backend))

    composed = jax.jit(lambda params, state, g: update_and_apply(tx, g, state, params))
    return {"update": composed, "step xla": by("xla"), "step auto": by("auto")}


def check(make: Callable[[], Case], shapes: dict[str, tuple[int, ...]], count: int) -> dict[str, dict[str, Any]]:
    """The differences of a case, over all steps, for each way."""
    device, cpu = jax.devices()[0], jax.devices("cpu")[0]
    case = make()
    steps = steps_of(case.tx)
    params = jax.device_put(tree(0, shapes, case.dtype), cpu)
    held = (params, jax.device_put(case.tx.init(params), cpu))
    found: dict[str, dict[str, Any]] = {way: {} for way in steps}
    for t in range(count):
        gradients = tree(t + 1, shapes, case.dtype, 10.0 ** (t - 2))
        if case.nan and t == 1:
            gradients["odd"][3, 5] = np.nan
        composed = steps["update"](*jax.device_put((*held, gradients), cpu))
        by_xla = steps["step xla"](*jax.device_put((*held, gradients), cpu))
        for way, step in steps.items():
            got = step(*jax.device_put((*held, gradients), device))
            here = of_steps(got, composed if way == "update" else by_xla, held)
            found[way] = {kind: x + found[way].get(kind, type(x)()) for kind, x in here.items()}
        held = composed
    return found


def against_optax(name: str, shapes: dict[str, tuple[int, ...]], count: int, **arguments: Any) -> dict[str, Any]:
    """Bitwise or not, on the device, over steps that go on from each other."""
    params = jax.tree.map(jnp.asarray, tree(0, shapes, "float32"))
    gradients = [jax.tree.map(jnp.asarray, tree(t + 1, shapes, "float32")) for t in range(count)]
    report = compare(getattr(adamx, name)(**arguments), getattr(optax, name)(**arguments), params, gradients)
    leaves = [str(leaf) for leaf in report.leaves if leaf.first is not None]
    return {"bitwise": report.equal, "ulps": report.max_ulps, "leaves": leaves}


PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    "adam": ("adam", {"learning_rate": 1e-3}),
    "adam, eps_root, nesterov": ("adam", {"learning_rate": 1e-3, "eps_root": 1e-8, "nesterov": True}),
    "adamw": ("adamw", {"learning_rate": 1e-3, "weight_decay": 0.1}),
    "adamw, schedule": ("adamw", {"learning_rate": optax.cosine_decay_schedule(1e-3, 20), "weight_decay": 0.1}),
}


def traced(make: Callable[[], Case], shapes: dict[str, tuple[int, ...]]) -> dict[str, dict[str, Any]]:
    """That a case can be built and its steps traced."""
    case = make()
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree(0, shapes, case.dtype))
    state = jax.eval_shape(case.tx.init, params)
    return {way: {"traced": len(step.eval_shape(params, state, params))} for way, step in steps_of(case.tx).items()}


def submitted(pool: concurrent.futures.Executor, *, quick: bool) -> dict[str, Any]:
    """What finds the differences of each case."""
    return {
        name: pool.submit(traced, make, SMALL)
        if quick and name not in RUN_IN_QUICK
        else pool.submit(check, make, *((SMALL, 2) if quick else (SHAPES, STEPS)))
        for name, make in cases().items()
    }


def run(record: Record, *, quick: bool, peer_python: str) -> None:
    shapes, count = (SMALL, 2) if quick else (SHAPES, 20)
    for name, (maker, arguments) in PEERS.items():
        find = functools.partial(against_optax, maker, shapes, count, **arguments)
        record.attempt(f"optax: {name}", find)
    # Several at a time, as most of the time goes to compilers.
    pool = concurrent.futures.ThreadPoolExecutor(max(2, len(os.sched_getaffinity(0)) - 4))
    for name, work in submitted(pool, quick=quick).items():
        found = record.found(name, lambda work=work: work.result(max(1.0, record.left())))
        for way, differences in (found or {}).items():
            record.add(f"{name}: {way}", **differences)
    pool.shutdown(wait=False, cancel_futures=True)
