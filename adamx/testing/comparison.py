"""Two transformations over the same stream of gradients."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
import optax

from adamx.testing.report import LeafDifference, Report


def _by_path(tree: Any) -> dict[str, np.ndarray]:
    found, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path) or "(root)": np.asarray(leaf) for path, leaf in found}


def _stepper(tx: optax.GradientTransformation, jit: bool) -> Callable[[Any, Any, Any], tuple[Any, Any, Any]]:
    tx = optax.with_extra_args_support(tx)

    def step(gradients: Any, state: Any, params: Any) -> tuple[Any, Any, Any]:
        updates, state = tx.update(gradients, state, params)
        return updates, state, optax.apply_updates(params, updates)

    return jax.jit(step) if jit else step


def compare(
    tx_a: optax.GradientTransformation,
    tx_b: optax.GradientTransformation,
    params: optax.Params,
    gradients: Iterable[optax.Updates],
    *,
    names: tuple[str, str] = ("a", "b"),
    jit: bool = True,
) -> Report:
    """Runs two optimizers on the same gradients and parameters, and compares them.

    Args:
        tx_a: a transformation.
        tx_b: what it is compared with; relative differences are relative to this one.
        params: the parameters both start from.
        gradients: a tree of the parameters' structure for each step.
        names: what the report calls the two.
        jit: compile update and `optax.apply_updates` as one function each; False runs them op by op.

    Returns:
        For each leaf of updates, state and parameters and each step the largest difference, absolute, relative and in
        units in the last place. Leaves of the states are matched by path.

    Raises:
        Whatever the transformations raise.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> from adamx.testing import compare
        >>> report = compare(adamx.adam(1e-3), optax.adam(1e-3), jnp.zeros(3), [jnp.ones(3)] * 5)
        >>> report.equal, report.max_ulps
        (True, 0.0)
    """
    runs = [(_stepper(tx, jit), tx.init(params), params) for tx in (tx_a, tx_b)]
    leaves: dict[tuple[str, str], LeafDifference] = {}
    only_in: dict[str, list[str]] = {name: [] for name in names}
    for g in gradients:
        results = [step(g, state, p) for step, state, p in runs]
        runs = [(step, state, p) for (step, *_), (_, state, p) in zip(runs, results, strict=True)]
        for i, part in enumerate(("update", "state", "params")):
            a, b = (_by_path(result[i]) for result in results)
            only_in = {
                names[0]: sorted({*only_in[names[0]], *(a.keys() - b.keys())}),
                names[1]: sorted({*only_in[names[1]], *(b.keys() - a.keys())}),
            }
            for path in a.keys() & b.keys():
                leaves.setdefault((part, path), LeafDifference(part, path)).add(a[path], b[path])
    order = {"update": 0, "state": 1, "params": 2}
    return Report(names, sorted(leaves.values(), key=lambda leaf: (order[leaf.part], leaf.path)), only_in)


def assert_equivalent(
    tx_a: optax.GradientTransformation,
    tx_b: optax.GradientTransformation,
    params: optax.Params,
    gradients: Iterable[optax.Updates],
    *,
    max_ulps: float = 0.0,
    names: tuple[str, str] = ("a", "b"),
    jit: bool = True,
) -> Report:
    """Raises if two optimizers differ, with the table of `compare`.

    Args:
        tx_a: a transformation.
        tx_b: what it is compared with.
        params: the parameters both start from.
        gradients: a tree of the parameters' structure for each step.
        max_ulps: how many units in the last place any number may differ; 0 demands every bit.
        names: what the report calls the two.
        jit: as for `compare`.

    Returns:
        The report.

    Raises:
        AssertionError: they differ by more, or their states have different leaves.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> from adamx.testing import assert_equivalent
        >>> streams = jnp.zeros(3), [jnp.ones(3)] * 5
        >>> _ = assert_equivalent(adamx.adam(1e-3), optax.adam(1e-3), *streams)
        >>> assert_equivalent(adamx.adam(1e-3), optax.sgd(1e-3), *streams)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        AssertionError: a against b, 5 steps: first difference at step 1: update (root)
        ...
    """
    report = compare(tx_a, tx_b, params, gradients, names=names, jit=jit)
    close = report.equal if max_ulps == 0 else report.max_ulps <= max_ulps and not any(report.only_in.values())
    if not close:
        raise AssertionError(str(report))
    return report
