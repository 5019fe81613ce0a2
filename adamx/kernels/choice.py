"""One of two programs for the same result, chosen when JAX lowers them: by platform and by number of devices."""

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Program = Callable[..., list[jax.Array]]
"""From flat arrays to flat arrays."""

_step = Primitive("adamx_step")
_step.multiple_results = True


def choose(
    fast: Program, plain: Program, like: Sequence[int], *arrays: jax.Array, others: Mapping[str, Program] | None = None
) -> list[jax.Array]:
    """Results of `fast` where it is compiled for one CPU device or inside `shard_map`, else those of `plain`.

    A call into a kernel would make XLA gather arrays that are sharded over devices. Derivatives, vmap and op by op
    execution take `plain` as well.

    Args:
        fast: from the arrays to arrays.
        plain: the same function.
        like: for each result the number of the argument that has its shape and dtype.
        *arrays: the arguments.
        others: instead of `fast` on "cuda", "rocm" and "tpu", by these names.
    """
    programs = (("cpu", fast), *(others or {}).items())
    return _step.bind(*arrays, programs=programs, plain=plain, like=tuple(like))


def _on_one_device(context: Any) -> bool:
    """Whether the program sees whole arrays on one device, or its own shards."""
    if hasattr(context, "manual_axes"):
        return set(context.manual_axes) == set(context.mesh.axis_names)
    return getattr(context, "num_devices", 2) == 1


@_step.def_impl
def _run(*arrays: Any, plain: Program, **_: Any) -> list[jax.Array]:
    return plain(*arrays)


@_step.def_abstract_eval
def _types(*types: Any, like: tuple[int, ...], plain: Program, **_: Any) -> list[Any]:
    """The types of the arguments that results are like; on a mesh those of `plain`: what varies, and what is split."""
    on_mesh = [kind for kind in types if kind.sharding.mesh.shape]
    return list(jax.make_jaxpr(plain)(*types).out_avals) if on_mesh else [types[i] for i in like]


def _lower_plain(context: Any, *arrays: Any, plain: Program, **_: Any) -> Any:
    return mlir.lower_fun(plain, multiple_results=True)(context, *arrays)


def _lower_on(
    platform: str, context: Any, *arrays: Any, programs: tuple[tuple[str, Program], ...], plain: Program, **_: Any
) -> Any:
    module = context.module_context
    alone = platform == "cpu" or len(module.platforms) == 1  # Pallas lowers for one platform at a time
    program = dict(programs).get(platform, plain) if alone and _on_one_device(module.axis_context) else plain
    with warnings.catch_warnings():
        # JAX 0.12 announces that Pallas's GPU compiler will go: where it is gone, XLA's own code runs.
        warnings.filterwarnings("ignore", "The Pallas Triton backend is deprecated", DeprecationWarning)
        return mlir.lower_fun(program, multiple_results=True)(context, *arrays)


def _differentiate(primals: Any, tangents: Any, *, plain: Program, **_: Any) -> Any:
    return jax.jvp(plain, tuple(primals), tuple(map(ad.instantiate_zeros, tangents)))


def _map(arrays: Any, axes: Any, *, plain: Program, **_: Any) -> Any:
    mapped = jax.vmap(plain, in_axes=tuple(axes))(*arrays)
    return mapped, [0] * len(mapped)


mlir.register_lowering(_step, _lower_plain)
for _platform in ("cpu", "cuda", "rocm", "tpu"):
    mlir.register_lowering(_step, functools.partial(_lower_on, _platform), platform=_platform)
ad.primitive_jvps[_step] = _differentiate
batching.primitive_batchers[_step] = _map
