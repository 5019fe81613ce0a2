"""What a probe has measured, read on the host."""

from typing import Any

import jax
import optax

from adamx.diagnostics.measure import Measurement, on_host
from adamx.diagnostics.probe import ProbeState
from adamx.guard import SkipNonfiniteState
from adamx.storage.codec import shapes
from adamx.trees import path_name


def diagnose(state: optax.OptState) -> dict[str, Measurement]:
    """What the probe in an optimizer's state last measured, by leaf path. Waits for the device.

    Args:
        state: of an optimizer with an `adamx.probe()` anywhere in it; it tells what a `skip_nonfinite` skipped, too.

    Returns:
        A dict from path, "encoder/layer_0/bias", to `Measurement`, Python numbers.

    Raises:
        TypeError: there is no probe in the state.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> tx = optax.chain(adamx.scale_by_moments(), adamx.probe(), adamx.bias_correction())
        >>> _, state = tx.update({"w": jnp.ones(4)}, tx.init({"w": jnp.ones(4)}))
        >>> adamx.diagnose(state)["w"].spike.__round__(3)
        1.0
    """
    nodes = _find(state)
    skipped = sum(int(node.skipped) for node in nodes if isinstance(node, SkipNonfiniteState))
    found: dict[str, Measurement] = {}
    paths: list[str] = []
    for node in nodes:
        if isinstance(node, ProbeState):
            for path, row in zip(paths, on_host(node.measured), strict=True):
                found[path] = Measurement(int(node.step), *row, skipped=skipped)
        elif not isinstance(node, SkipNonfiniteState):
            paths = [path_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(shapes(node.mu))[0]]
    if not any(isinstance(node, ProbeState) for node in nodes):
        raise TypeError(
            "there is no ProbeState in this state: put adamx.probe(learning_rate) between adamx.scale_by_moments() "
            "and adamx.bias_correction()"
        )
    return found


def _find(state: Any) -> list[Any]:
    """Guards, moments and probes in the order of the chain: a probe comes behind the moments it has measured."""

    def wanted(node: Any) -> bool:
        return isinstance(node, ProbeState | SkipNonfiniteState) or (hasattr(node, "mu") and hasattr(node, "nu"))

    found: list[Any] = []
    for node in jax.tree.leaves(state, is_leaf=wanted):
        if wanted(node):
            found += [node, *(_find(node.inner) if isinstance(node, SkipNonfiniteState) else [])]
    return found
