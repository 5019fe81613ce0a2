import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamx.kernels.choice import choose

X = jnp.arange(4.0)


def fast(x, y):
    return [x + 1, y]


def plain(x, y):
    return [x * 3, y]


def chosen(x, y):
    return choose({"cpu": fast}, plain, (0, 1), x, y)


def test_compiled_for_one_cpu_device_the_fast_program():
    np.testing.assert_array_equal(jax.jit(chosen)(X, X)[0], X + 1)


def test_in_a_loop_as_well():
    ended = jax.jit(lambda x: jax.lax.fori_loop(0, 3, lambda _, x: chosen(x, x)[0], x))(X)
    np.testing.assert_array_equal(ended, X + 3)


def test_op_by_op_the_plain_program():
    np.testing.assert_array_equal(chosen(X, X)[0], X * 3)


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
def test_mapped_over_the_plain_program(axes):
    got = jax.jit(jax.vmap(chosen, in_axes=axes, axis_size=4))(X, X)
    assert [x.shape[0] for x in got] == [4, 4]
    np.testing.assert_array_equal(jnp.ravel(got[0])[:: 1 if axes[0] == 0 else 5], X * 3)


def test_differentiated_the_plain_program():
    np.testing.assert_array_equal(jax.jit(jax.grad(lambda x: chosen(x, X)[0].sum()))(X), jnp.full(4, 3.0))


def test_shapes_are_those_of_the_arguments_named():
    shapes = jax.eval_shape(chosen, X, jnp.zeros((2, 3), jnp.int8))
    assert [(x.shape, x.dtype) for x in shapes] == [((4,), jnp.float32), ((2, 3), jnp.int8)]


def test_for_other_platforms_the_plain_program():
    text = jax.jit(chosen).trace(X, X).lower(lowering_platforms=("tpu",)).as_text()
    assert "multiply" in text
    assert "multiply" not in jax.jit(chosen).trace(X, X).lower(lowering_platforms=("cpu",)).as_text()
