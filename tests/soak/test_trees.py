"""Random trees of all dtypes, shapes and containers through every optimizer: right types, or an error with a path.

Hypothesis shrinks a failing case to a small one and prints it with the seed of its block.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, seed, settings

import adamx
from tests.soak.trees import cases, has

BLOCK = 250
"""Trees of one seed: 40 blocks are 10,000 trees."""

SOURCE = Path(adamx.__file__).parent


def shown(error):
    """Whether an error is one of adamx: raised there, of the documented types."""
    trace = error.__traceback__
    while trace.tb_next:
        trace = trace.tb_next
    return isinstance(error, TypeError | ValueError) and SOURCE in Path(trace.tb_frame.f_code.co_filename).parents


def runner(how):
    if how == "traced":
        return lambda f: lambda *args: jax.eval_shape(f, *args)
    return jax.jit if how == "compiled" else lambda f: f


def types(tree):
    return jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)


def steps(case, tx, params, gradients):
    """Two updates and two steps, with all that must hold for them."""
    run = runner(case.how)
    state = first = run(tx.init)(params)
    for _ in range(2):
        updates, state = run(tx.update)(gradients, state, params)
        assert types(state) == types(first), "the types of the state moved"
        assert jax.tree.structure(updates) == jax.tree.structure(gradients)
        assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params)
    if not has(case.tree, "float8"):  # optax.apply_updates adds float32 to none of them
        for _ in range(2):
            before = params
            params, state = run(functools.partial(adamx.step, tx))(gradients, state, params)
            assert types((params, state)) == types((before, first)), "the types of a step moved"
    if case.how != "traced":
        for x in jax.tree.leaves(state):
            assert np.isfinite(np.asarray(x, np.complex64)).all(), "the state is not finite"


def check(case):
    params, gradients, flaw = case.trees()
    wanted = [words for words in (flaw, case.refusal()) if words]
    try:
        tx = case.transformation()
        steps(case, tx, params, gradients)
    except (TypeError, ValueError) as error:
        if "do not go together" in str(error):
            return  # of storages, which tests/storage/test_pairs.py is about
        if not shown(error) or not any(words in str(error) for words in wanted):
            raise
    else:
        assert not wanted, f"no error names {' or '.join(wanted)}"


def block(number, trees):
    """Runs so many random trees, the same ones for the same number."""

    @seed(number)
    @settings(max_examples=trees, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(cases())
    def some(case):
        note(f"seed {number}")
        check(case)

    some()
    jax.clear_caches()


@pytest.mark.slow
def test_some_random_trees():
    block(0, 8)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(1, 41))
def test_ten_thousand_random_trees(number):
    block(number, BLOCK)
