"""What stages say about states and parameters that are not as they need them."""

from typing import Any

import jax
import optax


def wrong_state(expected: str, state: Any, detail: str = "") -> TypeError:
    """The error for a state that init did not return: what came, and what usually went wrong."""
    keys = f" with the keys {sorted(map(str, state))}" if isinstance(state, dict) else ""
    length = f" of {len(state)}" if type(state) in (list, tuple) else ""
    return TypeError(
        f"expected the state that init returned, {expected}, got {type(state).__name__}{length}{keys}{detail}. "
        "The order of arguments is update(gradients, state, params). A checkpoint restores to the right types with "
        "tx.init(params) as its template; a state of optax with the same fields becomes adamx.MomentsState(*state)"
    )


def check_empty(state: optax.OptState, number: str = "") -> optax.OptState:
    """The state of a stage that keeps nothing, else a TypeError; `number` may have been a schedule, which counts."""
    if jax.tree.leaves(state):
        dropped = (
            f": {number} was a schedule when it was made and is a number now. To go on pass "
            f"{number}=optax.constant_schedule(...), or put optax.EmptyState() in the place of this state"
        )
        raise wrong_state("EmptyState", state, dropped if number and hasattr(state, "count") else "")
    return state


def schedule_added(schedule: str, state: Any) -> str:
    """What the error for a state without a count says where a schedule is in the place of a number now."""
    if isinstance(state, optax.MaskedState):
        return ": there was a mask when it was made. To go on put its inner_state in its place"
    if not isinstance(state, optax.EmptyState):
        return ""
    return (
        f": {schedule} was a number when it was made and is a schedule now. To go on put in its place what "
        "tx.init(params) has there, with the number of steps taken: optax.tree.set(new, count=count)"
    )


def check_params(what: str, params: Any) -> Any:
    """The parameters, or a ValueError where update came without them."""
    if params is None:
        raise ValueError(f"{what} needs the parameters: tx.update(gradients, state, params)")
    return params


def check_transformation(tx: Any) -> None:
    """Raises a TypeError for anything but a transformation."""
    if hasattr(tx, "init") and hasattr(tx, "update"):
        return
    way_out = ": call it with its arguments" if callable(tx) else ""
    if isinstance(tx, list | tuple):
        way_out = ": pass each as an argument of its own, adamx.chain(*stages)"
    raise TypeError(f"expected a transformation such as adamx.adamw(1e-3), got {type(tx).__name__} {tx!r:.60}{way_out}")


def transformation(tx: Any) -> optax.GradientTransformationExtraArgs:
    """A transformation whose update takes extra arguments, from any one; a TypeError for anything else."""
    check_transformation(tx)
    return optax.with_extra_args_support(tx)
