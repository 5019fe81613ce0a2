"""Norms that a loop logs, out of the pass of a step: of gradients, updates and parameters."""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamx import shards
from adamx.core.errors import check_params, transformation, wrong_state
from adamx.core.leaf_norms import Norms, leaf_norms, of_given
from adamx.core.step import Pass, Update, Weights, about, landed, take_step, tree_to_float32
from adamx.core.work import by_xla
from adamx.norm import of_parts
from adamx.numerics import Scalar
from adamx.patterns import check_all_match, check_patterns
from adamx.precision.master_params import weights_behind
from adamx.trees import Tree, named_leaves
from adamx.variables import bare

ALL = "all"
"""The name of the norm over all leaves."""

Group = dict[str, jax.Array]
"""A float32 scalar for all leaves, under "all", and one for each pattern."""


class NormsState(NamedTuple):
    """The state of `with_norms`: the norms of the last step, each a dict with "all" and the patterns as its keys.

    Attributes:
        inner: the state of the wrapped transformation.
        gradients: the norms of the gradients as they came, float32 scalars; 0 before the first step, as are the others.
        updates: of what the step added to the weights.
        params: of the parameters after the step.
    """

    inner: optax.OptState
    gradients: Group
    updates: Group
    params: Group


def with_norms(tx: optax.GradientTransformation, *patterns: str) -> optax.GradientTransformationExtraArgs:
    """Keeps the norms of gradients, updates and parameters of the last step in the state, to be logged.

    `‖g_t‖`, `‖θ_t - θ_{t-1}‖` and `‖θ_t‖`, each `√Σx²` over all leaves, and over those of each pattern. The step itself
    is the same as without. Through `adamx.step` the native kernel sums squares as it steps and reads no array again.
    Its norms are right to 1e-5 of themselves, whatever size float32 numbers have. Without it XLA sums beside its own
    loop, in float32: a norm above 1e19 is infinite. The Pallas kernel for GPUs and TPUs takes no leaf of such a step.

    Gradients are those that this wrapper gets. Put it around a chain: a clip inside does not change their norm. If a
    stage makes other gradients before the optimizer, the norm of those that came costs a read. Updates and parameters
    are the float32 ones where `with_master_weights` is inside or around; with it inside, `update` takes the norm of
    the updates that it returns, which lead from parameter to parameter. A guard inside takes norms in a step that it
    skips too: those of updates are 0. A guard around this wrapper leaves the norms of the last step that was taken, as
    `accumulate` does between two steps.

    Inside `jax.shard_map` norms are those of all shards, as types tell. With `check_vma=False`, and in `jax.pmap`, each
    device has the norms of its own arrays. In `on_host` the whole tree steps at once, not in groups.

    Args:
        tx: any transformation, a whole chain.
        *patterns: regular expressions that are searched in the paths of leaves, see `match`. A leaf counts for each
            pattern that is found in its path.

    Returns:
        A transformation whose update needs the parameters, and whose state is `adamx.metrics.NormsState`.
        `adamx.metrics.read_norms(state)` gives all norms in a flat dict.

    Raises:
        ValueError: a pattern that is not a regular expression, or is "all"; at init and update, a pattern that is found
            in no path, no parameters; in a step, stages behind it in a chain.
        TypeError: a pattern that is not a string; at update, a state that is not this transformation's.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.with_norms(adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adamw(0.1)), "bias$")
        >>> params = {"kernel": jnp.array([3.0]), "bias": jnp.array([4.0])}
        >>> params, state = adamx.step(tx, params, tx.init(params), params)
        >>> {name: round(float(x), 2) for name, x in adamx.metrics.read_norms(state).items()}
        {'gradients/all': 5.0, 'gradients/bias$': 4.0, 'updates/all': 0.14, 'updates/bias$': 0.1,
         'params/all': 4.86, 'params/bias$': 3.9}
    """
    checked = check_patterns("with_norms", patterns)
    if ALL in checked:
        raise ValueError(f"with_norms: the pattern {ALL!r} has the name of the norm over all leaves: write ({ALL})")
    inner = transformation(tx)

    def init(params: optax.Params) -> NormsState:
        check_all_match("with_norms", checked, params)
        zeros = ({name: jnp.zeros([], jnp.float32) for name in (ALL, *checked)} for _ in range(3))
        return NormsState(tx.init(params), *zeros)

    def before(state: Any, params: Tree) -> NormsState:
        if not isinstance(state, NormsState) or state.params.keys() != {ALL, *checked}:
            raise wrong_state(f"NormsState of {', '.join(map(repr, (ALL, *checked)))}", state)
        check_all_match("with_norms", checked, params)
        return state

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, NormsState]:
        kept = before(state, check_params("with_norms", params))
        moved, after = inner.update(updates, kept.inner, params, **extra_args)
        there = landed(Weights(bare(params)), bare(moved), Pass(by_xla)).params
        trees = bare(updates), bare(moved), tree_to_float32(weights_behind(after, there))
        norms = tuple(map(leaf_norms, *map(jax.tree.leaves, trees)))
        return moved, _kept(kept, after, there, norms, checked, None)

    def step(gradients: Tree, state: Any, weights: Weights, told: Pass) -> tuple[Weights, NormsState]:
        kept = before(state, weights.params)
        if told.tails:
            raise ValueError(
                "with_norms takes the norms of a whole step, but stages of a chain stand behind it: "
                "put it around the whole chain, adamx.with_norms(adamx.chain(...))"
            )
        given = tuple(jax.tree.leaves(gradients))
        moved, after = take_step(inner, gradients, kept.inner, weights, told.replace(measured=given))
        assert moved.norms is not None
        state = _kept(kept, after, moved.params, moved.norms, checked, told.factor)
        return moved.replace(norms=of_given(moved.norms, given, told.measured)), state

    return optax.GradientTransformationExtraArgs(init, Update(update, step, why=about(inner).why))


def _kept(
    before: NormsState, after: Any, params: Tree, norms: Norms, patterns: tuple[str, ...], factor: Scalar | None
) -> NormsState:
    """The state after a step, from the norms of each leaf."""
    names = list(named_leaves(params))
    own = shards.varying(before.params[ALL])

    def whole(pattern: str) -> jax.Array:
        by_axes: dict[shards.Axes, list[jax.Array]] = {}
        for name, row in zip(names, norms, strict=True):
            if pattern == ALL or re.search(pattern, name):
                by_axes.setdefault(shards.axes_of(own, row) if shards.types_tell() else (), []).append(row)
        found = [of_parts(jnp.stack(rows), axes) for axes, rows in by_axes.items()]
        return of_parts(jnp.stack(found)) if found else jnp.zeros(3, jnp.float32)

    rows = {name: whole(name) for name in (ALL, *patterns)}
    gradients, updates, params = ({name: row[i] for name, row in rows.items()} for i in range(3))
    if factor is not None:
        by = jnp.abs(jnp.asarray(factor)).astype(jnp.float32)
        gradients = {name: by * x for name, x in gradients.items()}
    return NormsState(after, gradients, updates, params)


def read_norms(state: Any) -> dict[str, jax.Array]:
    """The norms that `with_norms` keeps, in a flat dict: "gradients/all", "updates/all", "params/all" and by pattern.

    Args:
        state: of `with_norms`, or any state that contains such, that of a chain or a guard say.

    Returns:
        Float32 scalars, by the name of the field of `NormsState` and, behind a slash, "all" or the pattern.

    Raises:
        TypeError: a state with no `NormsState` in it, or with several.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx = adamx.skip_nonfinite(adamx.with_norms(adamx.adam(0.1)))
        >>> params, state = adamx.step(tx, jnp.ones(4), tx.init(jnp.ones(4)), jnp.ones(4))
        >>> float(adamx.metrics.read_norms(state)["gradients/all"])
        2.0
    """

    def is_ours(node: Any) -> bool:
        return getattr(node, "_fields", ()) == NormsState._fields

    found = [node for node in jax.tree.leaves(bare(state), is_leaf=is_ours) if is_ours(node)]
    if len(found) != 1:
        there = "no" if not found else f"{len(found)}"
        raise TypeError(f"expected a state with one NormsState in it, got {type(state).__name__} with {there}")
    groups = {"gradients": found[0].gradients, "updates": found[0].updates, "params": found[0].params}
    return {f"{kind}/{name}": x for kind, group in groups.items() for name, x in group.items()}
