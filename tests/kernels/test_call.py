"""What comes back from the kernel, and where."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamx.core.averages import averages_of, of_squares
from adamx.core.leaf import MASTER, PLAIN, Leaf, Numbers, Rule, Term
from adamx.core.work import Tail, Work
from adamx.kernels.call import call_native
from adamx.kernels.layout import form_of
from adamx.kernels.operands import of_step
from adamx.storage import Float, Int4, Int8
from adamx.storage.int4 import decode_beside
from tests.backends import differing, needs_kernel


def leaf(shape, gradient, codecs, dtype="float32", remainder=None):
    zeros = jnp.zeros(shape)
    moments = [
        codec.zeros(zeros, jnp.float32, square=square) for codec, square in zip(codecs, (False, True), strict=True)
    ]
    return Leaf(jnp.full(shape, gradient), jnp.ones(shape, dtype), remainder, *moments)


def call(leaves, codecs, weights=PLAIN):
    averages = averages_of(of_squares, 0.5, 0.5, None, None, False).replace(mu_codec=codecs[0], nu_codec=codecs[1])
    rule, zero = Rule(averages, 0.0, False, weights), jnp.uint32(0)
    numbers = Numbers(None, *map(jnp.float32, (0.5, 0.5, 1, 1, 1, 0, 0)), zero, zero)
    tail = Tail((Term(scale=jnp.float32(-0.125)),), (0,) * len(leaves))

    def run(leaves):
        work = Work(numbers, tuple(leaves), (tail,), None, rule, ((0, 0),) * len(leaves), tuple(range(len(leaves))))
        return call_native(form_of(leaves[0], rule), work, of_step(work))

    return jax.jit(run)


CASES = {
    "float32": ((Float(), Float()), "float32", PLAIN),
    "bfloat16": ((Float("bfloat16"), Float("bfloat16")), "bfloat16", MASTER),
    "int8": ((Int8(32, 0), Int8(64, 0)), "float32", PLAIN),
    "int4": ((Int4(32, 0), Int4(64, 0)), "float32", PLAIN),
    "int8 v": ((Float(), Int8(64, 0)), "float16", MASTER),
}


@pytest.mark.slow
@needs_kernel
@pytest.mark.parametrize("case", CASES)
def test_results_are_in_the_leaf_they_belong_to(case):
    codecs, dtype, weights = CASES[case]
    behind = jnp.ones if dtype == "float16" else lambda shape: jnp.zeros(shape, jnp.uint16)
    shapes = {1.0: (65,), -2.0: (2, 64), 4.0: (1, 70), 0.5: (65,)}
    leaves = [leaf(s, g, codecs, dtype, behind(s) if weights == MASTER else None) for g, s in shapes.items()]
    got = call(leaves, codecs, weights)(leaves)
    for old, new, g in zip(leaves, got, shapes, strict=True):
        assert new.gradient is None
        assert jax.tree.structure(new[1:]) == jax.tree.structure(old[1:])
        assert [(x.shape, x.dtype) for x in jax.tree.leaves(new[1:])] == [
            (x.shape, x.dtype) for x in jax.tree.leaves(old[1:])
        ]
        v = codecs[1].decode(new.nu, jnp.float32)
        m = decode_beside(codecs[0], new.mu, v, jnp.float32)
        within = 2.0**-7 if case == "int4" else 1e-6  # one value in a block is its largest: exact, or in bfloat16
        np.testing.assert_allclose(m, g / 2, rtol=within)
        np.testing.assert_allclose(v, g * g / 2, rtol=1e-6)
        update = -0.125 * (g / 2) / np.sqrt(g * g / 2)
        np.testing.assert_allclose(new.param.astype(jnp.float32), 1 + update, rtol=2.0 ** -(jnp.finfo(dtype).nmant + 1))


@needs_kernel
@pytest.mark.parametrize("case", CASES)
def test_each_result_lies_where_its_argument_lay(case):
    codecs, dtype, weights = CASES[case]
    behind = jnp.ones if dtype == "float16" else lambda shape: jnp.zeros(shape, jnp.uint16)
    leaves = [leaf((2, 70), 1.0, codecs, dtype, behind((2, 70)) if weights == MASTER else None)] * 2
    donated = [x._replace(gradient=None) for x in jax.tree.map(jnp.copy, leaves)]
    run = call(leaves, codecs, weights).__wrapped__

    def step(gradients, changed):
        return run([x._replace(gradient=g) for g, x in zip(gradients, changed, strict=True)])

    before = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(donated)]
    after = jax.jit(step, donate_argnums=1)([x.gradient for x in leaves], donated)
    assert [x.unsafe_buffer_pointer() for x in jax.tree.leaves(after)] == before


@needs_kernel
def test_arguments_that_are_not_donated_stay():
    codecs = (Float(), Float())
    leaves = [leaf((2, 70), 1.0, codecs)]
    kept = jax.tree.map(lambda x: jnp.asarray(np.array(x)), leaves)
    call(leaves, codecs)(leaves)
    assert differing(leaves, kept) == []
