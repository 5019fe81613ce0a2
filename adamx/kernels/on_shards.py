"""The step of `shard_state`: the fused kernel sees shards, anything else whole arrays that XLA splits."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from adamx.kernels.fused import Fused, fused
from adamx.precision.wrapping import Wrapping
from adamx.sharding.transform import Sharded
from adamx.storage.dither import shard_offsets
from adamx.trees import Tree

Step = Callable[..., tuple[Tree, optax.OptState]]


def step_on_shards(
    step: Step, tx: Sharded, gradients: Tree, state: Any, params: Tree, extra: dict[str, Any]
) -> tuple[Tree, optax.OptState]:
    """Takes a step of a sharded transformation.

    Args:
        step: `adamx.step`.
        tx: the transformation.
        gradients: as for `step`, as are the others.
        state: likewise.
        params: likewise.
        extra: likewise.
    """
    one = _elementwise(tx.inner, params)
    if one is None:
        return tx.take(step, gradients, state, params, **extra)
    where = tx.plan(params)

    def on_each(_: Any, gradients: Tree, state: Any, params: Tree) -> tuple[Tree, optax.OptState]:
        def local(gradients: Tree, state: Any, params: Tree) -> tuple[Tree, optax.OptState]:
            return step(one, gradients, state, params, dither_offset=shard_offsets(gradients, where.shards))

        specs = {"in_specs": (where.shards, where.state, where.shards), "out_specs": (where.shards, where.state)}
        return _shard_map(local, tx.mesh, specs)(gradients, state, params)

    return tx.take(on_each, gradients, state, params)


def _elementwise(tx: optax.GradientTransformation, params: Tree) -> optax.GradientTransformation | None:
    """A fused transformation, alone or in a wrapper, its mask told by whole parameters; None for any other."""
    wrapping = tx.update if isinstance(tx.update, Wrapping) else None
    inner = tx if wrapping is None else wrapping.inner
    if not isinstance(inner.update, Fused) or inner.update.backend == "xla":
        return None
    recipe = inner.update.recipe
    if callable(recipe.mask):
        inner = fused(recipe.replace(mask=recipe.mask(params)))
    return inner if wrapping is None else wrapping.around(inner)


def _shard_map(f: Step, mesh: Any, specs: dict[str, Any]) -> Step:
    if hasattr(jax, "shard_map"):
        return jax.shard_map(f, mesh=mesh, check_vma=False, **specs)
    from jax.experimental.shard_map import shard_map  # noqa: PLC0415 (jax 0.6.0)

    return shard_map(f, mesh=mesh, check_rep=False, **specs)
