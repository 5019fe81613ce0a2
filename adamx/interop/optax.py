"""States of optax as states of adamx, and back."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx.core.decay import WeightDecaySchedule
from adamx.core.state import MomentsState
from adamx.optimizers.amsgrad import AmsgradState
from adamx.storage import Quantized
from adamx.storage.codec import is_half
from adamx.trees import Tree, path_name
from adamx.variables import map_with_path


def from_optax(state: optax.OptState) -> Any:
    """Converts the state of an optax optimizer to the state of the same optimizer of adamx.

    In a chain, under `masked`, `partition`, `inject_hyperparams`, `MultiSteps`, or in a tree with other things, each
    state of `optax.adam`, `adamw`, `nadam`, `nadamw`, `adamax`, `radam` or `adabelief` becomes `MomentsState`, each of
    `optax.amsgrad` `AmsgradState`; no array is copied, and the run continues bitwise identically. The second moment of
    complex parameters becomes real.

    Moments that optax keeps in bfloat16, for bfloat16 parameters, stay bfloat16:
    `adamx.interop.restore_as(tx, state, params)` moves them to the storage that `tx` has.

    Args:
        state: of an optax transformation, or any tree that contains some.

    Returns:
        A tree of the same containers.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> state = optax.adamw(1e-3).init(jnp.zeros(2))
        >>> type(adamx.interop.from_optax(state)[0]).__name__
        'MomentsState'
    """
    return jax.tree.map(_to_ours, state, is_leaf=_is_theirs)


def to_optax(state: Any) -> Any:
    """The inverse of `from_optax`: `MomentsState` becomes `optax.ScaleByAdamState`, and so on.

    Where `optax.adabelief` is to go on, whose fields are the same, say `optax.ScaleByBeliefState(*state)` of it.

    Args:
        state: of an adamx optimizer with plain moments, or any tree that contains some.

    Returns:
        A tree of the same containers.

    Raises:
        TypeError: a part that optax has not: dithered or quantized moments, which `restore_as` turns into plain ones,
            master weights, stochastic rounding, skipped steps. The error names its path.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> state = adamx.adam(1e-3).init(jnp.zeros(2))
        >>> updates, _ = optax.adam(1e-3).update(jnp.ones(2), adamx.interop.to_optax(state))
        >>> updates.round(4)
        Array([-0.001, -0.001], dtype=float32)
    """

    def convert(path: Any, node: Any) -> Any:
        plain = not _has_codes(node) and not _is_narrow(getattr(node, "nu", None))
        if type(node) in _TO_THEIRS and plain:
            return _TO_THEIRS[type(node)](node)
        if _is_ours(node):
            raise TypeError(
                f"optax has no state like {_words(node)} at {path_name(path)}: "
                "adamx.interop.restore_as(tx, state, params) makes plain moments of quantized or dithered ones; what "
                "wraps an optimizer has to be taken off, state.inner, and what it holds with it"
            )
        return node

    return map_with_path(convert, state, _is_ours)


def _moments(node: Any) -> MomentsState:
    return MomentsState(node.count, node.mu, jax.tree.map(_real, node.nu))


def _amsgrad(node: Any) -> AmsgradState:
    return AmsgradState(node.count, node.mu, *(jax.tree.map(_real, nu) for nu in (node.nu, node.nu_max)))


def _adam_of_optax(node: Any) -> optax.ScaleByAdamState:
    return optax.ScaleByAdamState(node.count, node.mu, jax.tree.map(_like, node.mu, node.nu))


def _amsgrad_of_optax(node: Any) -> optax.ScaleByAmsgradState:
    squares = (jax.tree.map(_like, node.mu, nu) for nu in (node.nu, node.nu_max))
    return optax.ScaleByAmsgradState(node.count, node.mu, *squares)


def _weight_decay(node: Any) -> WeightDecaySchedule:
    return WeightDecaySchedule(node.count)


def _weight_decay_of_optax(node: Any) -> Any:
    return _DECAY(node.count)


def _real(v: Any) -> Any:
    return v.real if jnp.iscomplexobj(v) else v


def _like(m: Any, v: Any) -> Any:
    """The second moment as optax keeps it: complex where m is."""
    return v.astype(m.dtype) if jnp.iscomplexobj(m) else v


_DECAY: Any = type(jax.eval_shape(optax.add_decayed_weights(optax.constant_schedule(0.0)).init, ()))
"""The state of optax's scheduled weight decay, which it does not export."""

_TO_OURS: dict[Any, Callable[[Any], Any]] = {
    optax.ScaleByAdamState: _moments,
    optax.ScaleByBeliefState: _moments,
    optax.ScaleByAmsgradState: _amsgrad,
}
_TO_THEIRS: dict[Any, Callable[[Any], Any]] = {
    MomentsState: _adam_of_optax,
    AmsgradState: _amsgrad_of_optax,
}
if _DECAY is not optax.EmptyState:  # older optax has no such schedule
    _TO_OURS[_DECAY] = _weight_decay
    _TO_THEIRS[WeightDecaySchedule] = _weight_decay_of_optax


def _is_theirs(node: Any) -> bool:
    return type(node) in _TO_OURS


def _to_ours(node: Any) -> Any:
    return _TO_OURS[type(node)](node) if _is_theirs(node) else node


def _is_ours(node: Any) -> bool:
    return type(node).__module__.split(".")[0] == "adamx"


def _has_codes(tree: Tree) -> bool:
    """Whether a moment is quantized."""
    return any(
        isinstance(node, Quantized) for node in jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, Quantized))
    )


def _is_narrow(nu: Tree) -> bool:
    """Whether v is in half precision, which optax does not dither."""
    return any(is_half(jnp.result_type(x)) for x in jax.tree.leaves(nu))


def _words(node: Any) -> str:
    kind = " with quantized moments" if _has_codes(node) else ""
    kind = kind or (" with a dithered v" if _is_narrow(getattr(node, "nu", None)) else "")
    return f"{type(node).__name__}{kind}"
