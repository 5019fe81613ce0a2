import jax
import jax.numpy as jnp
import numpy as np

from adamx.core.averages import averages_of, of_squares
from adamx.core.leaf import PLAIN, Leaf, Numbers, Rule, Term
from adamx.core.work import CAUTIOUSLY, EVERYWHERE, NOWHERE, Tail, Work, by_xla, decays, folds

RULE = Rule(averages_of(of_squares, 0.5, 0.5, None, None, False), 1e-8, False, PLAIN)
NUMBERS = Numbers(None, *map(jnp.float32, (0.5, 0.5, 0.5, 0.5, 0.75, 0, 0)), jnp.uint32(1), jnp.uint32(0))
TAILS = (
    Tail((Term(0.5), Term()), (0, 1, 0)),
    Tail((Term(scale=-0.1),), (0, 0, 0)),
    Tail((Term(scale=2.0), Term(scale=3.0), Term()), (2, 1, 0)),
)


def work(*sizes):
    leaves = tuple(Leaf(jnp.full(n, float(n)), jnp.ones(n), None, jnp.zeros(n), jnp.zeros(n)) for n in sizes)
    return Work(NUMBERS, leaves, TAILS, None, RULE, tuple((i, i) for i in range(len(sizes))), tuple(range(len(sizes))))


def test_each_leaf_has_its_terms():
    found = work(1, 2, 3)
    assert found.terms(0) == (Term(0.5, None), Term(None, -0.1), Term(None, None))
    assert found.terms(1) == (Term(None, None), Term(None, -0.1), Term(None, 3.0))
    assert TAILS[2].on(0) == Term()


def test_some_leaves_take_along_what_belongs_to_them():
    some = work(1, 2, 3).replace(offsets=((1,), (2,), (3,))).take([2, 0])
    assert [leaf.param.size for leaf in some.leaves] == [3, 1]
    assert some.terms(0) == (Term(0.5, None), Term(None, -0.1), Term(None, 2.0))
    assert some.offsets == ((3,), (1,))
    assert some.salts == ((2, 2), (0, 0))


def test_how_a_leaf_decays_and_whether_its_terms_fold():
    cautious = Tail((Term(0.5, cautious=True), Term()), (0, 1, 0))
    alone = work(1, 2, 3).replace(tails=(cautious, TAILS[1]))
    assert alone.each(decays) == [CAUTIOUSLY, NOWHERE, CAUTIOUSLY]
    assert alone.terms(0) == (Term(0.5, None, True), Term(None, -0.1))
    assert alone.terms(1)[0] == Term()
    assert work(1, 2, 3).each(decays) == [EVERYWHERE, NOWHERE, EVERYWHERE]
    assert alone.each(folds) == [True] * 3
    both = work(1, 2, 3).replace(tails=(cautious, TAILS[0]))
    assert both.each(folds) == [False, True, False]
    twice = work(1, 2, 3).replace(tails=(TAILS[0], TAILS[0]))
    assert twice.each(folds) == [True] * 3
    assert alone.take([2]).each(decays) == [CAUTIOUSLY]
    assert work(1, 2).replace(tails=()).kinds() == ([()], [0, 0])
    asked: list[tuple[Term, ...]] = []
    assert work(1, 2, 3).replace(tails=TAILS[:1]).each(asked.append) == [None] * 3
    assert asked == [(Term(0.5),), (Term(),)]


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
