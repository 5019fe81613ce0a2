"""Whether a wrapper of optax hides a step in one pass, and what of adamx stands in its place."""

from typing import Any

INSTEAD = {
    "chain": "adamx.chain, with the same state",
    "named_chain": "adamx.chain, which keeps a tuple of states",
    "MultiSteps": "adamx.accumulate",
    "apply_if_finite": "adamx.skip_nonfinite",
    "inject_hyperparams": "adamx.inject_hyperparams",
    "masked": "adamx.route, which freezes leaves whose optimizer is None",
    "partition": "adamx.route",
}
"""What to use instead of a wrapper of optax, by the name with which those of its updates begin."""

HIDES = "hides the one pass of adamx"
FACTORIES = ("adam", "adamw", "mars", "nadam", "nadamw")
"""What makes optimizers whose step is one pass: `inject_hyperparams` holds no optimizer, but what makes it."""


def hidden_by(update: Any) -> str:
    """What hides a step in one pass, and what to use instead; "" where the update of a transformation hides none."""
    package, _, name = called(update).partition(".")
    if name not in INSTEAD or package != "optax":
        return ""
    bound = hasattr(update, "__self__")  # a method holds what its object does, a function what is around it
    held = vars(update.__self__).values() if bound else [cell.cell_contents for cell in update.__closure__ or ()]
    return f"optax.{name} {HIDES}: use {INSTEAD[name]}" if any(map(_makes_one_pass, held)) else ""


def called(update: Any) -> str:
    """The update of a transformation by the name of the function that has made it, as in "optax.sgd"."""
    function = getattr(update, "function", update)
    name = getattr(function, "__qualname__", type(function).__name__).partition(".")[0]
    package = (getattr(function, "__module__", None) or "").partition(".")[0]
    return f"{package}.{name}"


def _makes_one_pass(held: Any) -> bool:
    """Whether what a wrapper holds is, or has in it, a transformation whose step is one pass, or that hides one."""
    if isinstance(held, dict):
        return any(map(_makes_one_pass, held.values()))  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(held, tuple | list) and not hasattr(held, "update"):
        return any(map(_makes_one_pass, held))  # pyright: ignore[reportUnknownArgumentType]
    update: Any = getattr(held, "update", held)  # pyright: ignore[reportUnknownArgumentType]
    if hasattr(update, "step"):
        return update.step is not None and not update.why
    makes_one = getattr(held, "__name__", "") in FACTORIES and (held.__module__ or "").startswith("adamx.")
    return makes_one or bool(hidden_by(update))
