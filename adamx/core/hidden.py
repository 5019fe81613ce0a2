"""Whether a chain of optax hides a step in one pass."""

from typing import Any

HIDDEN = "optax.chain hides the one pass of adamx: use adamx.chain, with the same state"
CHAINS = ("chain.<locals>.", "named_chain.<locals>.")
"""How the names of the updates of optax's chains begin."""


def hides_one_pass(update: Any) -> bool:
    """Whether an update is that of a chain of optax with a stage, or a chain in it, whose step is one pass."""
    if hasattr(update, "step") or not getattr(update, "__qualname__", "").startswith(CHAINS):
        return False
    held = [cell.cell_contents for cell in update.__closure__ or ()]  # its function holds the stages
    stages: list[Any] = [stage for found in held if isinstance(found, tuple | list) for stage in found]  # pyright: ignore[reportUnknownVariableType]
    return any(map(_makes_one_pass, stages))


def _makes_one_pass(stage: Any) -> bool:
    one: Any = stage[-1] if isinstance(stage, tuple) and not hasattr(stage, "update") else stage  # pyright: ignore[reportUnknownVariableType]
    update = getattr(one, "update", one)
    if hasattr(update, "step"):
        return update.step is not None and not update.why
    return hides_one_pass(update)
