"""Steps as compiled programs on shared arrays, several of them in a loop, so that no launch from Python is timed."""

import concurrent.futures
import contextlib
import functools
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from harness import Builder, Contender
from on_gpu.record import Record
from workloads import Optimizer, Tree, bytes_of, gradients_for, shapes_of

import adamx


def by_xla(tx: Any, gradients: Tree, state: Tree, params: Tree) -> tuple[Tree, Tree]:
    """`adamx.step` without kernels."""
    return adamx.step(tx, gradients, state, params, backend="xla")


class Program(NamedTuple):
    """What is compiled: `(params, state, gradients) -> (params, state)`, in place.

    Attributes:
        call: the program.
        optimizer: whose steps it takes.
        steps: how many.
        found: what there is to say of how it was compiled.
    """

    call: Any
    optimizer: Optimizer
    steps: int
    found: dict[str, Any]


def looped(optimizer: Optimizer, steps: int) -> Any:
    """Several steps with the same gradients in one program.

    The barrier keeps XLA from calculating what depends on gradients alone once, in front of the loop.
    """

    def step(_: Any, carried: tuple[Tree, Tree], gradients: Tree) -> tuple[Tree, Tree]:
        (params, state), gradients = jax.lax.optimization_barrier((carried, gradients))
        return optimizer.take(optimizer.tx, gradients, state, params)

    def run(params: Tree, state: Tree, gradients: Tree) -> tuple[Tree, Tree]:
        if steps == 1:
            return optimizer.take(optimizer.tx, gradients, state, params)
        return jax.lax.fori_loop(0, steps, functools.partial(step, gradients=gradients), (params, state))

    return jax.jit(run, donate_argnums=(0, 1))


def lowered(optimizer: Optimizer, params: Tree, steps: int) -> tuple[Any, float]:
    """A program for the device of this process, before it is compiled, and the seconds that this takes."""
    start = time.perf_counter()
    found = looped(optimizer, steps).lower(*shapes_of(optimizer, params))
    return found, time.perf_counter() - start


def compiled(form: Any, optimizer: Optimizer, params: Tree, steps: int, lower_s: float) -> Program:
    """The program, with its times and the bytes that it needs beside its arguments and results."""
    start = time.perf_counter()
    call = form.compile()
    found: dict[str, Any] = {"lower_s": lower_s, "compile_s": time.perf_counter() - start}
    with contextlib.suppress(Exception):
        size, memory = bytes_of(params) / 4, call.memory_analysis()
        found["temp_bytes_per_parameter"] = memory.temp_size_in_bytes / size
    return Program(call, optimizer, steps, found)


def all_compiled(
    optimizers: Mapping[str, Optimizer], params: Tree, steps: int, record: Record, where: str
) -> dict[str, Program]:
    """Programs by name, compiled side by side; one that does not compile is a row."""
    forms = {}
    for name, optimizer in optimizers.items():
        form = record.found(f"{where}{name}", functools.partial(lowered, optimizer, params, steps))
        if form is not None:
            forms[name] = form
    programs = {}
    with concurrent.futures.ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)) // 2)) as pool:
        work = {
            name: pool.submit(compiled, form, optimizers[name], params, steps, seconds)
            for name, (form, seconds) in forms.items()
        }
        for name, future in work.items():
            program = record.found(f"{where}{name}", future.result)
            if program is not None:
                programs[name] = program
    return programs


class Arrays:
    """Parameters and states on the device; programs whose arrays have the same shapes work on the same ones."""

    def __init__(self, params: Tree):
        self._params, self._gradients = params, gradients_for(params)
        self._held: dict[Any, list[jax.Array]] = {}

    def contender(self, program: Program) -> Contender:
        """What runs as many steps as it is asked to, in whole programs; only the last one is waited for."""
        shapes = shapes_of(program.optimizer, self._params)[:2]
        layout, structure = tuple((s.shape, s.dtype) for s in jax.tree.leaves(shapes)), jax.tree.structure(shapes)

        def run(calls: int) -> float:
            carried = structure.unflatten(self._arrays(layout, program.optimizer))
            runs = -(-calls // program.steps)
            start = time.perf_counter()
            for _ in range(runs):
                carried = program.call(*carried, self._gradients)
            jax.block_until_ready(carried)
            taken = time.perf_counter() - start
            self._held[layout] = jax.tree.leaves(carried)
            return taken / runs / program.steps

        return run

    def builders(self, programs: Mapping[str, Program]) -> dict[str, Builder]:
        return {name: functools.partial(self.contender, program) for name, program in programs.items()}

    def _arrays(self, layout: Any, optimizer: Optimizer) -> list[jax.Array]:
        held = self._held.get(layout)
        if held is None or any(x.is_deleted() for x in held):  # a program that fails has used them up
            zeros = jax.tree.map(jnp.zeros_like, self._gradients)
            held = self._held[layout] = jax.tree.leaves(jax.block_until_ready((zeros, optimizer.tx.init(zeros))))
        return held


def those_that_run(builders: Mapping[str, Builder], record: Record, where: str) -> dict[str, Builder]:
    """Without those whose contender fails, each of which is a row."""

    def first(build: Builder) -> float:
        return build()(1)

    return {
        name: build
        for name, build in builders.items()
        if record.found(f"{where}{name}", functools.partial(first, build)) is not None
    }


@contextlib.contextmanager
def abstract_gpu() -> Iterator[None]:
    """Where there is no GPU, lets JAX lower programs for one."""
    sharding = jax.sharding
    if not hasattr(sharding, "AbstractDevice"):
        yield
        return
    there = sharding.AbstractDevice("NVIDIA H100", None, "cuda")
    with sharding.use_abstract_mesh(sharding.AbstractMesh((), (), abstract_device=there)):
        yield


def lowers_for_gpu(optimizer: Optimizer, params: Tree, steps: int) -> dict[str, Any]:
    """Lowers a program for a GPU, on any machine: how many kernels of Pallas are in it."""
    with abstract_gpu():
        traced = looped(optimizer, steps).trace(*shapes_of(optimizer, params))
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    return {"lowered_for": "cuda", "kernels": text.count("__gpu$xla.gpu.triton")}
