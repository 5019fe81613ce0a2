"""Whether something changes updates behind a wrapper for half-precision parameters."""

import warnings
from typing import Any

import jax
import optax

from adamx.precision.master_weights import DitheredMasterWeightsState, MasterWeightsState
from adamx.precision.stochastic_rounding import StochasticRoundingState

NAMES = {
    MasterWeightsState: "with_master_weights",
    DitheredMasterWeightsState: "with_master_weights",
    StochasticRoundingState: "with_stochastic_rounding",
}


def warn_of_what_follows(state: Any) -> None:
    """Warns where a chain goes on behind `with_master_weights` or `with_stochastic_rounding`.

    The update that they give leads from one half-precision number to another. Rescaled, it is rounded away when it is
    applied, and the state of the wrapper does not know.

    Args:
        state: of any transformation; the state of a chain is a tuple, that of a named chain a dict.
    """
    found = _followed(state, chained=True)
    if found:
        warnings.warn(
            f"a chain goes on behind {found}: what it changes is lost where parameters are half precision. Put the "
            f"wrapper around the whole chain: adamx.{found}(optax.chain(...))",
            stacklevel=3,
        )


def _followed(state: Any, *, chained: bool) -> str:
    """The name of a wrapper behind which a chain goes on; "" if there is none. A dict is a chain where `chained`."""
    if not isinstance(state, tuple | dict):
        return ""
    parts: list[Any] = list(state.values()) if isinstance(state, dict) else list(state)
    in_a_row = type(state) is tuple or (isinstance(state, dict) and chained)
    inside = (_wrapper_in(p) for i, p in enumerate(parts[:-1]) if in_a_row and not _is_a_group(parts[i:]))
    below = (_followed(part, chained=type(state) is tuple) for part in parts)  # a field may hold groups in a dict
    return next(filter(None, (*inside, *below)), "")


def _is_a_group(parts: list[Any]) -> bool:
    """Whether all that follows goes on with other leaves, as far as a state tells: masks for a group each."""
    return all(isinstance(part, optax.MaskedState) for part in parts)


def _wrapper_in(state: Any) -> str:
    """The name of a wrapper whose state is in a state; "" if there is none."""

    def wrapper(node: Any) -> bool:
        return type(node) in NAMES

    return next((NAMES[type(n)] for n in jax.tree.leaves(state, is_leaf=wrapper) if wrapper(n)), "")
