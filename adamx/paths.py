"""Groups of parameters by their paths: masks, and a factor on the step of each group."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax

from adamx import hyperparameters
from adamx.core.decay import INJECTED
from adamx.core.errors import check_empty
from adamx.core.leaf import Term, scaled
from adamx.core.stages import no_state
from adamx.core.step import Update, Weights
from adamx.core.work import Tail
from adamx.numerics import Scalar
from adamx.patterns import check_all_match, check_patterns, first_match
from adamx.trees import Tree, path_name
from adamx.variables import flatten_with_path, holds_leaf, map_with_path


def _checked(what: str, patterns: tuple[Any, ...]) -> tuple[str, ...]:
    if not patterns:
        raise ValueError(f'{what} needs at least one regular expression, {what}("bias$", "norm") say')
    return check_patterns(what, patterns)


def _mask(what: str, patterns: tuple[str, ...], tree: Tree, *, where_found: bool) -> Tree:
    """Booleans in the places of leaves, and of Flax's variables: what a mask leaves out is then no variable."""
    _check_is_tree(what, tree)
    check_all_match(what, patterns, tree)

    def answer(path: Any, _: Any) -> bool:
        return (first_match(patterns, path_name(path)) is not None) == where_found

    return map_with_path(answer, tree, holds_leaf)


def _check_is_tree(what: str, tree: Tree) -> None:
    """Raises a TypeError for the step count: `optax.inject_hyperparams` took a mask for a schedule."""
    if jnp.issubdtype(getattr(tree, "dtype", type(tree)), jnp.integer) and jnp.ndim(tree) == 0:
        raise TypeError(f"{what} got the step count in place of a tree. {INJECTED}")


def match(*patterns: str) -> Callable[[Tree], Tree]:
    """Makes a mask of the leaves whose path matches one of the patterns, for any `mask=` argument and as labels.

    A path is written "encoder/layer_0/bias", in dicts, lists, dataclasses, Flax NNX states and Equinox modules. In a
    group of `optax.masked` or `optax.partition` a pattern may match only leaves of another group.

    Args:
        *patterns: regular expressions, searched anywhere in the path: "bias$", "^encoder/", "norm|scale".

    Returns:
        A function from a tree to one of booleans. It raises a ValueError if a pattern is found in no path, and names
        paths that come near.

    Raises:
        ValueError: no pattern, or one that is not a regular expression.
        TypeError: a pattern that is not a string.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> params = {"body": {"w": jnp.ones(2)}, "head": {"w": jnp.ones(2), "bias": jnp.ones(1)}}
        >>> adamx.match("bias$")(params)
        {'body': {'w': False}, 'head': {'bias': True, 'w': False}}

        A frozen body without state, by `optax.partition`:

        >>> tx = optax.partition({True: adamx.adam(0.1), False: optax.set_to_zero()}, adamx.match("^head/"))
        >>> updates, _ = tx.update(params, tx.init(params), params)
        >>> updates["body"]["w"], updates["head"]["w"].round(1)
        (Array([0., 0.], dtype=float32), Array([-0.1, -0.1], dtype=float32))
    """
    checked = _checked("match", patterns)

    def mask(tree: Tree) -> Tree:
        return _mask("match", checked, tree, where_found=True)

    return mask


def not_matching(*patterns: str) -> Callable[[Tree], Tree]:
    """The opposite of `match`: a mask of the leaves whose path matches none of the patterns.

    Args:
        *patterns: regular expressions, searched anywhere in the path: "bias$", "^encoder/", "norm|scale".

    Returns:
        A function from a tree to one of booleans. It raises a ValueError if a pattern is found in no path.

    Raises:
        ValueError: no pattern, or one that is not a regular expression.
        TypeError: a pattern that is not a string.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> params = {"kernel": jnp.ones(1), "bias": jnp.ones(1)}
        >>> tx = adamx.adamw(0.1, weight_decay=0.5, mask=adamx.not_matching("bias$"))
        >>> zero = {"kernel": jnp.zeros(1), "bias": jnp.zeros(1)}
        >>> updates, _ = tx.update(zero, tx.init(params), params)
        >>> abs(updates["kernel"]), abs(updates["bias"])
        (Array([0.05], dtype=float32), Array([0.], dtype=float32))
    """
    checked = _checked("not_matching", patterns)

    def mask(tree: Tree) -> Tree:
        return _mask("not_matching", checked, tree, where_found=False)

    return mask


def scale_by_path(factors: Mapping[str, Scalar]) -> optax.GradientTransformationExtraArgs:
    """Multiplies the updates of each group by a factor, for example for another learning rate.

    `u ← f u`, f of the first pattern that matches the leaf's path; a leaf without a match stays as it is. After `adam`
    or `scale_by_lr` the factor multiplies the learning rate, after `adamw` the weight decay too.

    Args:
        factors: by regular expression, see `match`; finite and >= 0.

    Returns:
        A stateless transformation of updates, in the dtypes that came, computed in float32 or wider.

    Raises:
        ValueError: as `match`; a factor that is negative, NaN or infinite; at update, a pattern found in no path.
        TypeError: as `match`; a factor that is not a number.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> tx = optax.chain(adamx.adam(1.0), adamx.scale_by_path({"embedding": 0.1}))
        >>> params = {"embedding": jnp.ones(1), "head": jnp.ones(1)}
        >>> updates, _ = tx.update(params, tx.init(params), params)
        >>> updates["embedding"].round(1), updates["head"].round(1)
        (Array([-0.1], dtype=float32), Array([-1.], dtype=float32))
    """
    patterns = _checked("scale_by_path", tuple(factors))
    numbers = [hyperparameters.nonnegative(f"scale_by_path: the factor of {p!r}", f) for p, f in factors.items()]

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        check_empty(state)
        check_all_match("scale_by_path", patterns, updates)

        def on_leaf(path: Any, u: Any) -> Any:
            which = first_match(patterns, path_name(path))
            if which is None:
                return u
            return scaled(numbers[which], u).astype(jnp.result_type(u))

        return map_with_path(on_leaf, updates), state

    def tail(state: Any, weights: Weights) -> tuple[Tail, optax.OptState]:
        check_empty(state)
        check_all_match("scale_by_path", patterns, weights.params)
        paths = [path for path, _ in flatten_with_path(weights.params)[0]]
        found = [first_match(patterns, path_name(path)) for path in paths]
        which = tuple(len(numbers) if number is None else number for number in found)
        return Tail((*[Term(scale=f) for f in numbers], Term()), which), state

    return optax.GradientTransformationExtraArgs(no_state, Update(update, tail=tail))
