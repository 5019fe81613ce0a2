import jax
import jax.numpy as jnp
import numpy as np

from adamx.core.averages import averages_of, of_squares
from adamx.core.leaf import PLAIN, Leaf, Numbers, Rule, Term
from adamx.core.work import CAUTIOUSLY, EVERYWHERE, NOWHERE, Tail, Work, by_xla

RULE = Rule(averages_of(of_squares, 0.5, 0.5, None, None, False), 1e-8, False, PLAIN)
NUMBERS = Numbers(None, *map(jnp.float32, (0.5, 0.5, 0.5, 0.5, 0.75, 0, 0)), jnp.uint32(1), jnp.uint32(0))
TAILS = (
    Tail(decay=0.5, decays=(True, False, True)),
    Tail(scales=(-0.1,), which=(0, 0, 0)),
    Tail(scales=(2.0, 3.0), which=(None, 1, 0)),
)


def work(*sizes):
    leaves = tuple(Leaf(jnp.full(n, float(n)), jnp.ones(n), None, jnp.zeros(n), jnp.zeros(n)) for n in sizes)
    return Work(NUMBERS, leaves, TAILS, None, RULE, tuple((i, i) for i in range(len(sizes))), tuple(range(len(sizes))))


def test_each_leaf_has_its_terms():
    found = work(1, 2, 3)
    assert found.terms(0) == (Term(0.5, None), Term(None, -0.1), Term(None, None))
    assert found.terms(1) == (Term(None, None), Term(None, -0.1), Term(None, 3.0))
    assert Tail().on(5) == Term(None, None)


def test_some_leaves_take_along_what_belongs_to_them():
    some = work(1, 2, 3).replace(offsets=((1,), (2,), (3,))).take([2, 0])
    assert [leaf.param.size for leaf in some.leaves] == [3, 1]
    assert some.terms(0) == (Term(0.5, None), Term(None, -0.1), Term(None, 2.0))
    assert some.offsets == ((3,), (1,))
    assert some.salts == ((2, 2), (0, 0))


def test_how_a_leaf_decays_and_whether_its_terms_fold():
    cautious = Tail(decay=0.5, decays=(True, False, True), cautious=True)
    alone = work(1, 2, 3).replace(tails=(cautious, TAILS[1]))
    assert [alone.decays(i) for i in range(3)] == [CAUTIOUSLY, NOWHERE, CAUTIOUSLY]
    assert alone.terms(0) == (Term(0.5, None, True), Term(None, -0.1))
    assert alone.terms(1)[0] == Term()
    assert [work(1, 2, 3).decays(i) for i in range(3)] == [EVERYWHERE, NOWHERE, EVERYWHERE]
    assert all(alone.folds(i) for i in range(3))
    both = work(1, 2, 3).replace(tails=(cautious, TAILS[0]))
    assert [both.folds(i) for i in range(3)] == [False, True, False]
    twice = work(1, 2, 3).replace(tails=(TAILS[0], TAILS[0]))
    assert all(twice.folds(i) for i in range(3))
    assert alone.take([2]).decays(0) == CAUTIOUSLY


def test_is_a_tree_of_arrays():
    found = work(1, 2, 3)
    leaves, treedef = jax.tree.flatten(found)
    again = treedef.unflatten(leaves)
    assert again.salts == found.salts
    assert again.rule is found.rule
    assert jax.tree.structure(again) == treedef


def test_by_xla_is_the_same_inside_and_outside_jit():
    inside, outside = jax.jit(by_xla)(work(4, 5, 4)), by_xla(work(4, 5, 4))
    for a, b in zip(*map(jax.tree.leaves, (inside, outside)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
