import jax.numpy as jnp
import numpy as np

from adamx.core.averages import averages_of, of_squares
from adamx.core.leaf import PLAIN, Leaf, Numbers, Rule, Term
from adamx.core.work import Tail, Work
from adamx.kernels import operands
from adamx.kernels.operands import of_step

LEAF = Leaf(*[jnp.zeros(3)] * 2, None, *[jnp.zeros(3)] * 2)


def work(tails, offsets=None, factor=None, b1=0.9):
    averages = averages_of(of_squares, b1, 0.999, None, None, False)
    rule = Rule(averages.replace(b1=None) if not isinstance(b1, float) else averages, 1e-8, False, PLAIN)
    numbers = Numbers(factor, *map(jnp.float32, (0.9, 0.999, 0.1, 0.2, 0.3, 1e-8, 0)), jnp.uint32(7), jnp.uint32(8))
    return Work(numbers, (LEAF,) * 3, tails, offsets, rule, ((16, 32), (48, 64), (80, 96)), (0, 1, 2))


def scalars_of(work):
    return operands.scalars(work, of_step(work))


def test_numbers_and_counts():
    found = scalars_of(work((), factor=jnp.float32(0.5)))
    expected = [0.9, 1 - 0.9, 0.999, 1 - 0.999, 0.1, 0.2, 0.3, 1e-8, 0, 0.5]
    np.testing.assert_array_equal(found.numbers, np.float32(expected))
    np.testing.assert_array_equal(found.counts, [7, 8])
    assert scalars_of(work(())).numbers[9] == 1
    assert scalars_of(work((), b1=jnp.float32(0.9))).numbers[1] == 1 - jnp.float32(0.9)


def test_what_stands_behind_is_one_multiple_of_each():
    decay = Tail((Term(jnp.float32(0.5)), Term()), (0, 1, 0))
    rate = Tail((Term(scale=jnp.float32(-0.25)),), (0, 0, 0))
    groups = Tail((Term(scale=jnp.float32(2)), Term(scale=jnp.float32(8)), Term()), (0, 2, 1))
    found = scalars_of(work((decay, rate, groups)))
    np.testing.assert_array_equal(found.terms, [[-0.5, -0.25], [-0.25, 0], [-2, -1]])
    np.testing.assert_array_equal(found.salts, [[16, 32, 1], [48, 64, 0], [80, 96, 1]])
    late = scalars_of(work((rate, decay)))  # u scaled, then the parameters added
    np.testing.assert_array_equal(late.terms, [[-0.25, 0.5], [-0.25, 0], [-0.25, 0.5]])
    np.testing.assert_array_equal(scalars_of(work(())).terms, [[1, 0]] * 3)
    cautious = scalars_of(work((Tail((Term(jnp.float32(0.5), cautious=True), Term()), (0, 1, 0)), rate)))
    np.testing.assert_array_equal(cautious.terms, [[-0.25, -0.125], [-0.25, 0], [-0.25, -0.125]])
    np.testing.assert_array_equal(cautious.salts, [[16, 32, 2], [48, 64, 0], [80, 96, 2]])


def test_salts_move_by_where_a_shard_begins():
    found = scalars_of(work((), offsets=((5,), (jnp.uint32(0),), (1,))))
    np.testing.assert_array_equal(found.salts[:, 0], [21, 48, 81])
