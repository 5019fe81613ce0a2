"""What one process has where it has all; parts of leaves are in host_processes.py."""

import jax
import jax.numpy as jnp

import adamx
from adamx.streaming.pieces import Inputs, check_held, inputs_of, states_of

PARAMS = {"a": jnp.ones((4, 8)), "b": jnp.ones(3)}


def test_one_process_has_whole_leaves():
    tx = adamx.adam(0.1)
    trees = PARAMS, PARAMS, tx.init(PARAMS), {}
    found = inputs_of(tx, trees)
    assert found.whole is found.own
    assert found.offsets is None
    assert found.split == set()
    assert found.first == [0, 2, 4, 9, 9]
    assert jax.tree.map(jnp.shape, found.own) == jax.tree.map(jnp.shape, trees)
    check_held(PARAMS, PARAMS)
    check_held({}, PARAMS)  # the step tells where they part
    whole, own = states_of(tx, PARAMS)
    assert whole == own


def test_split_arrays_are_those_of_the_state():
    whole, own = ([jnp.ones(n), jnp.ones(n), [jnp.ones(()), jnp.ones(n)], {}] for n in (4, 2))
    assert Inputs(tuple(whole), tuple(own), ((2,),)).split == {3}
