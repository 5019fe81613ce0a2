"""The probe: a stage in the gap that measures and changes nothing."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamx import hyperparameters, shards
from adamx.core.errors import wrong_state
from adamx.core.message import Weight, check_message
from adamx.core.rate import ScalarOrSchedule
from adamx.diagnostics.measure import MEASURED, measure, paper_bound
from adamx.numerics import Scalar
from adamx.trees import map_leaves

LARGE = 2**20
"""So many elements are measured in one branch, unless one leaf has more."""


class ProbeState(NamedTuple):
    """The state of `probe`, read by `diagnose`.

    Attributes:
        step: when it last measured, an int32 scalar; 0: not yet.
        measured: float32, a row for each leaf and a column for each field of `Measurement` in between.
    """

    step: jax.Array
    measured: jax.Array


def probe(learning_rate: ScalarOrSchedule | None = None, *, every: int = 50) -> optax.GradientTransformationExtraArgs:
    """Measures what Adam does to each leaf, between stage 1 and stage 2; updates stay bitwise identical.

    In every `every`-th step, the first included, it computes the fields of `Measurement` for each leaf and keeps them
    in its state; in the others it passes the message on. `diagnose` reads the state of the optimizer on the host.

    Args:
        learning_rate: α, as `scale_by_lr` gets it; None: what depends on the update's length is NaN. With it, XLA keeps
            a copy of the parameters in every step, for the branch that may read them.
        every: how many steps apart, >= 1.

    Returns:
        A transformation from `Moments` to the same `Moments`, with `ProbeState`.

    Raises:
        TypeError: every not an integer, learning_rate neither number nor schedule; at update, no `Moments`.
        ValueError: every below 1; a negative, infinite or NaN learning_rate.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> tx = optax.chain(
        ...     adamx.scale_by_moments(), adamx.diagnostics.probe(0.1), adamx.bias_correction(), adamx.scale_by_lr(0.1)
        ... )
        >>> params = {"w": jnp.full(4, 10.0)}
        >>> _, state = tx.update({"w": jnp.array([1.0, -1.0, 2.0, 0.0])}, tx.init(params), params)
        >>> found = adamx.diagnostics.diagnose(state)["w"]
        >>> found.step, round(found.signal_to_noise, 2), round(found.update_ratio, 4)
        (1, 0.75, 0.0087)
    """
    every = hyperparameters.integer("every", every, 1)
    rate = learning_rate
    if rate is not None and not callable(rate):
        rate = hyperparameters.nonnegative("learning_rate", rate)

    def init(params: optax.Params) -> ProbeState:
        leaves = len(jax.tree.leaves(params))
        return ProbeState(jnp.zeros([], jnp.int32), jnp.zeros((leaves, len(MEASURED)), jnp.float32))

    def update(
        updates: Any, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[Any, ProbeState]:
        moments = check_message("probe()", updates)
        if not isinstance(state, ProbeState):
            raise wrong_state("ProbeState", state)
        leaves = len(jax.tree.leaves(moments.gradients))
        if leaves != len(state.measured):
            raise ValueError(
                f"probe() was made for {len(state.measured)} leaves and got {leaves}: expected the "
                "gradients of the parameters that init got"
            )
        if not leaves:
            return moments, state

        # Written before they are measured and read from there by what follows, in place: else the compiler, which
        # computes them again for the parameters, would have to keep the old ones beside the new.
        mu, nu = map_leaves(_written, 2, moments.mu, moments.nu)
        moments = moments.replace(mu=mu, nu=nu, nu_weight=moments.nu_weight)
        now = (moments.count - 1) % every == 0
        count = moments.count - 1
        given = "the value of the learning_rate schedule"
        alpha = hyperparameters.scalar(given, rate(count)) if callable(rate) else rate
        weights = _evaluated(moments.mu_weight), _evaluated(moments.nu_weight)
        columns = [jax.tree.leaves(tree) for tree in (moments.gradients, mu, nu)]
        columns.append([None] * leaves if rate is None or params is None else jax.tree.leaves(params))

        rows = list(enumerate(zip(*columns, strict=True)))
        bound, own = paper_bound(moments.b1, moments.b2), shards.varying(count)

        def row(g: Any, m: Any, v: Any, p: Any) -> jax.Array:
            of_leaf = [x for x in (g, m, v, p) if x is not None]
            return measure(g, m, v, p, weights, alpha, bound, shards.axes_of(own, *of_leaf))

        def branch(part: list[tuple[int, Any]]) -> jax.Array:
            return jax.lax.cond(
                now,
                lambda: jnp.stack([row(*columns) for _, columns in part]),
                lambda: state.measured[part[0][0] : part[-1][0] + 1],
            )

        table = jnp.concatenate([branch(part) for part in _parts(rows)])
        return moments, ProbeState(jnp.where(now, moments.count, state.step), table)

    return optax.GradientTransformationExtraArgs(init, update)


def _parts(rows: list[tuple[int, Any]]) -> list[list[tuple[int, Any]]]:
    """The leaves in groups for a branch each: what one branch keeps in memory, the next one can use."""
    parts: list[list[tuple[int, Any]]] = []
    size = 0
    for i, row in rows:
        if not parts or size + row[0].size > LARGE:
            parts, size = [*parts, []], 0
        parts[-1].append((i, row))
        size += row[0].size
    return parts


def _evaluated(weight: Weight | Scalar) -> jax.Array:
    return weight.evaluate() if isinstance(weight, Weight) else jnp.asarray(weight, float)


def _written(m: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.lax.optimization_barrier((m, v))
