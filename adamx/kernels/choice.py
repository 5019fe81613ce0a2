"""One of two programs for the same result, chosen when JAX lowers them: by platform and by number of devices."""

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from adamx.kernels.partition import asks_for_mesh, can_split

Program = Callable[..., list[jax.Array]]
"""From flat arrays to flat arrays."""


def choose(
    programs: Mapping[str, Program], plain: Program, like: Sequence[int], *arrays: jax.Array, splits: bool = False
) -> list[jax.Array]:
    """Results of the platform's program where one is compiled, else those of `plain`.

    For one device and inside `shard_map` the program gets the arrays that are at hand. A call into a kernel would make
    XLA gather arrays that are sharded over devices: there the program is told whether it can split itself. Derivatives,
    vmap and op by op execution take `plain`.

    Args:
        programs: by the names "cpu", "cuda", "rocm" and "tpu", from the arrays to arrays; for several devices they get
            `split`: whether each device can make calls on its shards, see `adamx.kernels.partition`.
        plain: the same function.
        like: for each result the number of the argument that has its shape and dtype.
        *arrays: the arguments.
        splits: whether to ask JAX for the mesh, without which no program can be split. It must then be one mesh in all
            of the user's program, of devices that are there.
    """
    step = _SPLIT if splits else _WHOLE
    return step.bind(*arrays, programs=tuple(programs.items()), plain=plain, like=tuple(like))


def _on_one_device(context: Any) -> bool:
    """Whether the program sees whole arrays on one device, or its own shards."""
    if hasattr(context, "manual_axes"):
        return set(context.manual_axes) == set(context.mesh.axis_names)
    return getattr(context, "num_devices", 2) == 1


def _run(*arrays: Any, plain: Program, **_: Any) -> list[jax.Array]:
    return plain(*arrays)


def _types(*types: Any, like: tuple[int, ...], plain: Program, **_: Any) -> list[Any]:
    """The types of the arguments that results are like; on a mesh those of `plain`: what varies, and what is split."""
    on_mesh = [kind for kind in types if kind.sharding.mesh.shape]
    return list(jax.make_jaxpr(plain)(*types).out_avals) if on_mesh else [types[i] for i in like]


def _lower_plain(context: Any, *arrays: Any, plain: Program, **_: Any) -> Any:
    return mlir.lower_fun(plain, multiple_results=True)(context, *arrays)


def _lower_on(
    platform: str, context: Any, *arrays: Any, programs: tuple[tuple[str, Program], ...], plain: Program, **_: Any
) -> Any:
    module, program = context.module_context, dict(programs).get(platform, plain)
    several = platform != "cpu" and len(module.platforms) > 1  # Pallas lowers for one platform at a time
    if several or module.lowering_parameters.for_export:  # what is exported runs where there is no adamx
        program = plain
    elif not _on_one_device(module.axis_context):
        program = plain if program is plain else functools.partial(program, split=can_split(platform, module))
    with warnings.catch_warnings():
        # JAX 0.12 announces that Pallas's GPU compiler will go: where it is gone, XLA's own code runs.
        warnings.filterwarnings("ignore", "The Pallas Triton backend is deprecated", DeprecationWarning)
        return mlir.lower_fun(program, multiple_results=True)(context, *arrays)


def _differentiate(primals: Any, tangents: Any, *, plain: Program, **_: Any) -> Any:
    return jax.jvp(plain, tuple(primals), tuple(map(ad.instantiate_zeros, tangents)))


def _map(arrays: Any, axes: Any, *, plain: Program, **_: Any) -> Any:
    mapped = jax.vmap(plain, in_axes=tuple(axes))(*arrays)
    return mapped, [0] * len(mapped)


def _primitive(name: str) -> Primitive:
    step = Primitive(name)
    step.multiple_results = True
    step.def_impl(_run)
    step.def_abstract_eval(_types)
    mlir.register_lowering(step, _lower_plain)
    for platform in ("cpu", "cuda", "rocm", "tpu"):
        mlir.register_lowering(step, functools.partial(_lower_on, platform), platform=platform)
    ad.primitive_jvps[step] = _differentiate
    batching.primitive_batchers[step] = _map
    return step


_WHOLE, _SPLIT = _primitive("adamx_step"), _primitive("adamx_step_on_devices")
asks_for_mesh(_SPLIT)
