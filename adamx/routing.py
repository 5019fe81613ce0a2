"""An optimizer for each group of parameters, chosen by path."""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.transforms import PartitionState

from adamx.core.errors import wrong_state
from adamx.core.hidden import HIDES
from adamx.core.step import Pass, Update, Weights, about, measured, take_step
from adamx.patterns import check_all_match, check_patterns
from adamx.trees import Tree, path_name
from adamx.variables import flatten_with_path, holds_leaf

DEFAULT = "default"
"""The name of the group of what no pattern is found in."""

Group = optax.GradientTransformation | None
"""How a group steps; None: its parameters stay as they are, and have no state."""


class _Unsaid:
    def __repr__(self) -> str:
        return "an error"


UNSAID: Any = _Unsaid()


def route(optimizers: Mapping[str, Group], default: Group = UNSAID) -> optax.GradientTransformationExtraArgs:
    """Chooses an optimizer for each group of parameters, by patterns that match their paths.

    Each group has an optimizer of its own, with its own learning rate, weight decay and storage, from adamx, optax or
    elsewhere: for example Muon for matrices and `adamw` for the rest. None freezes a group: its parameters are not
    touched and have no state. Updates and state are those of `optax.partition`. Through `adamx.step` each optimizer of
    adamx makes one pass over its own group; an optimizer of optax uses `update` and `apply_updates` in its group. A
    `clip_by_global_norm` inside a group takes the norm of that group; `adamx.chain(clip_by_global_norm(1.0),
    route(...))` takes that of all gradients. If groups differ only by a factor on the learning rate, use
    `scale_by_path`.

    Args:
        optimizers: by regular expression, which is searched anywhere in the path "encoder/layer_0/bias", see `match`.
        default: for the parameters in whose path no pattern is found. Left out, such a parameter is an error.

    Returns:
        A transformation whose state is `optax.transforms.PartitionState`, with a state by pattern.

    Raises:
        ValueError: no pattern, or one that is not a regular expression; at init, a pattern that is found in no path, a
            parameter in whose path two patterns are found, or none while there is no default.
        TypeError: a pattern that is not a string, an optimizer that is none.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> params = {"body": {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}, "head": jnp.ones(2)}
        >>> tx = adamx.route({"^body/w": optax.sgd(0.5), "^head": None}, default=adamx.adam(0.1))
        >>> params, state = adamx.step(tx, params, tx.init(params), params)
        >>> params["body"]["w"][0], params["body"]["b"].round(2), params["head"]
        (Array([0.5, 0.5], dtype=float32), Array([0.9, 0.9], dtype=float32), Array([1., 1.], dtype=float32))
    """
    patterns = check_patterns("route", optimizers)
    groups = _checked(optimizers, default)

    def labels(tree: Tree) -> tuple[tuple[str, ...], Any]:
        """The group of each leaf, and the structure of the tree."""
        check_all_match("route", patterns, tree)
        found, treedef = flatten_with_path(tree, holds_leaf)
        return tuple(_group_of(path_name(path), patterns, default is not UNSAID) for path, _ in found), treedef

    def init(params: optax.Params) -> PartitionState:
        of_leaf, treedef = labels(params)
        only = functools.partial(_only, of_leaf, treedef)
        return PartitionState({name: optax.MaskedState(tx.init(only(name, params))) for name, tx in groups.items()})

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, PartitionState]:
        of_leaf, treedef = labels(updates)
        only = functools.partial(_only, of_leaf, treedef)

        def take(name: str, tx: optax.GradientTransformation, state: Any) -> tuple[Any, Any]:
            extra = _extra(functools.partial(only, name), extra_args)
            given = None if params is None else only(name, params)
            return optax.with_extra_args_support(tx).update(only(name, updates), state, given, **extra)

        found, after = _each(groups, take, state)
        return _joined(of_leaf, treedef, found, jax.tree.map(jnp.zeros_like, updates)), after

    def step(gradients: Tree, state: Any, weights: Weights, told: Pass) -> tuple[Weights, PartitionState]:
        of_leaf, treedef = labels(weights.params)
        only = functools.partial(_only, of_leaf, treedef)

        def take(name: str, tx: optax.GradientTransformation, state: Any) -> tuple[Any, Any]:
            here = [i for i, group in enumerate(of_leaf) if group == name]
            inside = told.replace(
                extra=_extra(functools.partial(only, name), told.extra),
                tails=tuple(tail.take(here) for tail in told.tails),
                places=tuple(here if told.places is None else (told.places[i] for i in here)),
                measured=None if told.measured is None else tuple(told.measured[i] for i in here),
            )
            remainder = None if weights.remainder is None else only(name, weights.remainder)
            given = weights.replace(params=only(name, weights.params), remainder=remainder)
            return take_step(tx, only(name, gradients), state, given, inside)

        found, after = _each(groups, take, state)
        params = _joined(of_leaf, treedef, {name: moved.params for name, moved in found.items()}, weights.params)
        remainder = weights.remainder
        if remainder is not None:
            behind = {name: moved.remainder for name, moved in found.items()}
            remainder = _joined(of_leaf, treedef, behind, remainder)
        moved = weights.replace(params=params, remainder=remainder)
        return _measured(moved, told, of_leaf, {name: group.norms for name, group in found.items()}), after

    return optax.GradientTransformationExtraArgs(init, Update(update, step, why=_why(groups)))


FROZEN = optax.set_to_zero()
"""What stands for None."""


def _checked(optimizers: Mapping[str, Group], default: Group) -> dict[str, optax.GradientTransformation]:
    """The optimizers by the name of their group."""
    if not optimizers:
        raise ValueError('route needs at least one pattern: adamx.route({"bias$": None}, default=adamx.adamw(1e-3))')
    if DEFAULT in optimizers:
        raise ValueError(f"route: the pattern {DEFAULT!r} has the name of the rest: write it as '({DEFAULT})'")
    given = dict(optimizers) if default is UNSAID else {**optimizers, DEFAULT: default}
    for name, tx in given.items():
        if tx is not None and not isinstance(tx, optax.GradientTransformation):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"route: expected an optimizer or None for {name!r}, got {tx!r} of {type(tx).__name__}")
    return {name: FROZEN if tx is None else tx for name, tx in given.items()}


def _each(
    groups: Mapping[str, optax.GradientTransformation], take: Callable[..., tuple[Any, Any]], state: Any
) -> tuple[dict[str, Any], PartitionState]:
    """What each optimizer gives of its group, and the state."""
    if not isinstance(state, PartitionState) or state.inner_states.keys() != groups.keys():
        raise wrong_state(f"PartitionState of {', '.join(map(repr, groups))}", state)
    found, after = {}, dict(state.inner_states)
    for name, tx in groups.items():
        if tx is not FROZEN:
            before: Any = state.inner_states[name]
            found[name], inner = take(name, tx, before.inner_state)
            after[name] = optax.MaskedState(inner)
    return found, PartitionState(after)


def _group_of(name: str, patterns: tuple[str, ...], rest: bool) -> str:
    """The group of a path, or a ValueError where there are two, or none."""
    found = [pattern for pattern in patterns if re.search(pattern, name)]
    if len(found) > 1:
        raise ValueError(f"route: {found[0]!r} and {found[1]!r} are both found in {name!r}: make one of them narrower")
    if not found and not rest:
        raise ValueError(f"route: no pattern is found in {name!r}: give default= an optimizer, or None to freeze it")
    return found[0] if found else DEFAULT


def _why(groups: Mapping[str, optax.GradientTransformation]) -> str:
    """Why a group has no step of one pass."""
    hidden = [about(tx).why for tx in groups.values() if HIDES in about(tx).why]
    if hidden:
        return hidden[0]
    composed = [name for name, tx in groups.items() if tx is not FROZEN and (about(tx).step is None or about(tx).why)]
    return f"the optimizer of {composed[0]!r} has no step of one pass" if composed else ""


def _only(of_leaf: tuple[str, ...], treedef: Any, name: str, tree: Tree) -> Tree:
    """A tree without the leaves of other groups."""
    columns = zip(of_leaf, treedef.flatten_up_to(tree), strict=True)
    return treedef.unflatten([x if group == name else optax.MaskedNode() for group, x in columns])


def _extra(only: Callable[[Tree], Tree], extra: dict[str, Any]) -> dict[str, Any]:
    """Extra arguments for a group: of the places of shards its own."""
    places = extra.get("dither_offset")
    return extra if places is None else {**extra, "dither_offset": only(places)}


def _measured(moved: Weights, told: Pass, of_leaf: tuple[str, ...], found: Mapping[str, Any]) -> Weights:
    """The weights with the norms of all groups, if they are asked for; a frozen leaf has no update."""
    if told.measured is None:
        return moved
    columns: dict[str, Any] = {name: iter(norms) for name, norms in found.items()}
    frozen: Any = measured(moved, told).norms
    return moved.replace(
        norms=tuple(next(columns[group]) if group in columns else frozen[i] for i, group in enumerate(of_leaf))
    )


def _joined(of_leaf: tuple[str, ...], treedef: Any, found: Mapping[str, Tree], others: Tree) -> Tree:
    """One tree of those of all groups, and of others where a group is frozen."""
    columns = {name: treedef.flatten_up_to(tree) for name, tree in found.items()}
    rest = treedef.flatten_up_to(others)
    return treedef.unflatten([columns[group][i] if group in columns else rest[i] for i, group in enumerate(of_leaf)])
