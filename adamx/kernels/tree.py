"""The state of `adam` and `adamw`, with or without a wrapper for half precision, taken apart into leaves and put back.

What the kernel does not take goes through the composed transformation, on trees that have None where the kernel's
leaves are: there every other part of the state, counters and schedules, steps on as well.
"""

from typing import Any, NamedTuple

import optax

from adamx.core.composition import wrong_state
from adamx.core.state import DitheredMomentsState, MomentsState
from adamx.kernels.layout import Leaf
from adamx.precision.master_weights import MasterWeightsState
from adamx.precision.stochastic_rounding import StochasticRoundingState
from adamx.precision.wrapping import Wrapping
from adamx.trees import Tree


class Parts(NamedTuple):
    """A state in parts.

    Attributes:
        outer: that of the wrapper, or None.
        moments: both moments and the counters.
        others: the states of the stages behind.
    """

    outer: MasterWeightsState | StochasticRoundingState | None
    moments: MomentsState | DitheredMomentsState
    others: tuple[optax.OptState, ...]


def take_apart(state: Any, wrapping: Wrapping | None, stages: int) -> Parts:
    """The parts of a state, or a TypeError that says what is not as init made it."""
    outer = None
    if wrapping is not None:
        kind = MasterWeightsState if wrapping.seed is None else StochasticRoundingState
        if not isinstance(state, kind):
            raise wrong_state(kind.__name__, state)
        outer, state = state, state.inner
    if type(state) is not tuple or len(state) != stages:
        raise wrong_state(f"a tuple of {stages} states", state)
    if not isinstance(state[0], MomentsState | DitheredMomentsState):
        raise wrong_state("MomentsState", state[0])
    return Parts(outer, state[0], tuple(state[1:]))


def put_together(parts: Parts) -> Any:
    """The inverse."""
    inner = (parts.moments, *parts.others)
    return inner if parts.outer is None else parts.outer._replace(inner=inner)


def leaves_of(treedef: Any, gradients: Tree, params: Tree, parts: Parts) -> list[Leaf]:
    """What belongs to each leaf of the parameters, in their order."""
    remainder = parts.outer.remainder if isinstance(parts.outer, MasterWeightsState) else None
    columns = [treedef.flatten_up_to(tree) for tree in (gradients, params, parts.moments.mu, parts.moments.nu)]
    remainders = [None] * treedef.num_leaves if remainder is None else treedef.flatten_up_to(remainder)
    return [Leaf(g, p, r, mu, nu) for g, p, mu, nu, r in zip(*columns, remainders, strict=True)]


def with_leaves(treedef: Any, leaves: list[Leaf], parts: Parts) -> tuple[Tree, Tree, Parts]:
    """Gradients, parameters and state with these leaves in the places of theirs; None where one is to be left out."""
    columns = [[getattr(leaf, name) for leaf in leaves] for name in Leaf._fields]
    gradients, params, remainder, mu, nu = (treedef.unflatten(column) for column in columns)
    outer = parts.outer
    if isinstance(outer, MasterWeightsState):
        outer = outer._replace(remainder=remainder)
    return gradients, params, Parts(outer, parts.moments._replace(mu=mu, nu=nu), parts.others)
