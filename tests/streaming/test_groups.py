import jax
import jax.numpy as jnp
import numpy as np

import adamx
from adamx.core.step import Pass, Weights, take_step
from adamx.core.work import by_xla
from adamx.streaming import groups


def work_of(tx, params):
    """The work of a step on these parameters."""
    found = []

    def execute(work):
        found.append(work)
        return groups.before(work)

    take_step(tx, params, tx.init(params), Weights(params), Pass(execute))
    return found[0]


def grouped(tx, params, donate=False):
    work = work_of(tx, params)
    count = len(params)
    changed = len(jax.tree.leaves(groups.before(work)))
    first = [0, count, 2 * count, 2 * count + changed]
    return work, groups.groups_of(work, first, list(range(count, count + changed)), by_xla, donate)


def test_a_group_is_full_of_neighbours(monkeypatch):
    monkeypatch.setattr(groups, "GROUP", 10)
    params = {name: jnp.ones(size) for name, size in zip("abcdef", (3, 3, 4, 20, 1, 2), strict=True)}
    _, found = grouped(adamx.adam(0.1), params)
    assert [group.gradients for group in found] == [[0, 1, 2], [3], [4, 5]]


def test_groups_of_equal_shapes_share_a_program(monkeypatch):
    monkeypatch.setattr(groups, "GROUP", 4)
    params = {name: jnp.ones(size) for name, size in zip("abcd", (4, 4, 5, 4), strict=True)}
    _, found = grouped(adamx.adam(0.1), params)
    a, b, c, d = (group.program for group in found)
    assert a is b is d
    assert c is not a
    _, found = grouped(adamx.adamw(0.1, mask={"a": True, "b": False, "c": True, "d": True}), params)
    assert found[0].program is not found[1].program


def test_a_program_is_the_step_of_its_leaves_and_its_arrays_are_the_last_first():
    params = {"a": jnp.arange(3.0), "b": jnp.ones(2)}
    work, (group,) = grouped(adamx.adamw(0.1), params)
    assert group.changed == list(range(2, 8))[::-1]
    assert group.params == [2, 5]
    arrays = jax.tree.leaves(groups.before(work))[::-1]
    gradients = [leaf.gradient for leaf in work.leaves]
    shared = groups.shared_numbers(work)
    expected = jax.tree.leaves(by_xla(work))[::-1]
    for clean, results in ((None, expected), (jnp.bool_(True), expected), (jnp.bool_(False), arrays)):
        for x, y in zip(group.program(clean, shared, gradients, arrays), results, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-6)
