"""What a probe has measured, read on the host."""

from typing import Any

import jax
import optax

from adamx.core.guarded import is_guard
from adamx.diagnostics.measure import Measurement, on_host
from adamx.diagnostics.probe import ProbeState
from adamx.storage.codec import shapes
from adamx.trees import named_leaves
from adamx.variables import bare


def diagnose(state: optax.OptState) -> dict[str, Measurement]:
    """Reads the last measurements of the probe from an optimizer's state, by leaf path. Waits for the device.

    Args:
        state: of an optimizer with an `adamx.diagnostics.probe()` anywhere in it; it also tells what guards around it
            skipped.

    Returns:
        A dict from path, "encoder/layer_0/bias", to `Measurement`, Python numbers.

    Raises:
        TypeError: there is no probe in the state.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> tx = optax.chain(adamx.scale_by_moments(), adamx.diagnostics.probe(), adamx.bias_correction())
        >>> _, state = tx.update({"w": jnp.ones(4)}, tx.init({"w": jnp.ones(4)}))
        >>> adamx.diagnostics.diagnose(state)["w"].spike.__round__(3)
        1.0
    """
    found: dict[str, Measurement] = {}
    probes = _find(bare(state))
    for probe, paths, skipped in probes:
        for path, row in zip(paths, on_host(probe.measured), strict=True):
            found[path] = Measurement(int(probe.step), *row, skipped=skipped)
    if not probes:
        raise TypeError(
            "there is no ProbeState in this state: put adamx.diagnostics.probe(learning_rate) between "
            "adamx.scale_by_moments() and adamx.bias_correction()"
        )
    return found


def _find(state: Any, skipped: int = 0) -> list[tuple[ProbeState, list[str], int]]:
    """Each probe with the paths of the moments before it in the chain, and what the guards around it skipped."""

    def wanted(node: Any) -> bool:
        return isinstance(node, ProbeState) or is_guard(node) or (hasattr(node, "mu") and hasattr(node, "nu"))

    found: list[tuple[ProbeState, list[str], int]] = []
    paths: list[str] = []
    for node in jax.tree.leaves(state, is_leaf=wanted):
        if is_guard(node):
            found += _find(node.inner, skipped + int(node.skipped))
        elif isinstance(node, ProbeState):
            found.append((node, paths, skipped))
        elif wanted(node):
            paths = list(named_leaves(shapes(node.mu)))
    return found
