"""Flax NNX: one spelling of a path in every function that takes or prints one."""

import jax
import numpy as np
import optax
import pytest
from flax import nnx

import adamx
from adamx.variables import bare
from tests.composition.test_nnx import Network


class Square(nnx.Module):
    def __init__(self):
        self.fc = nnx.Linear(3, 3, rngs=nnx.Rngs(0))


ONE_SPELLING = {
    "exclude": lambda pattern, tree: adamx.adam(
        1.0, nu_dtype=adamx.storage.Int8(min_size=4096, exclude=(pattern,))
    ).init(tree),
    "match": lambda pattern, tree: adamx.match(pattern)(tree),
    "not_matching": lambda pattern, tree: adamx.not_matching(pattern)(tree),
    "scale_by_path": lambda pattern, tree: adamx.scale_by_path({pattern: 0.5}).update(tree, optax.EmptyState()),
    "mask": lambda pattern, tree: adamx.adamw(0.1, mask=adamx.match(pattern)).init(tree),
}


@pytest.mark.parametrize("f", ONE_SPELLING.values(), ids=ONE_SPELLING)
@pytest.mark.parametrize("container", ["variables", "arrays"])
def test_patterns_find_one_spelling(f, container):
    params = nnx.split(Network())[1]
    tree = params if container == "variables" else bare(params)
    f("^fc/kernel$", tree)
    f("^scale$", tree)
    with pytest.raises(ValueError, match=r"no path matches 'kernel/value'.* among them: .*fc/kernel"):
        f("kernel/value", tree)


def test_errors_print_that_spelling():
    params = nnx.split(Network())[1]
    tx = adamx.adam(0.1)
    short = jax.tree.map(lambda p: p[..., :1], params)
    with pytest.raises(ValueError, match=r"gradient at fc/bias has shape \(1,\)"):
        tx.update(short, tx.init(params), params)
    integers = jax.tree.map(lambda p: p.astype(int), params)
    with pytest.raises(TypeError, match="gradient at fc/bias must be an array"):
        tx.update(integers, tx.init(params), params)
    with pytest.raises(TypeError, match=r"0/mu/fc/bias: expected \(1,\), got \(32,\)"):
        adamx.interop.check_restored(tx, tx.init(params), short)


@pytest.mark.slow
def test_square_kernels_of_torch_are_transposed():
    params = nnx.split(Square())[1]
    w, b = np.arange(9, dtype=np.float32).reshape(3, 3), np.zeros(3, np.float32)
    weights, layout = {"fc.weight": w, "fc.bias": b}, adamx.interop.flax_kernels
    names = {"fc/kernel": "fc.weight", "fc/bias": "fc.bias"}
    got = adamx.interop.params_from_torch(weights, names, params, layout=layout)
    assert jax.tree.structure(got) == jax.tree.structure(params)
    np.testing.assert_array_equal(bare(got)["fc"]["kernel"], w.T)
    back = adamx.interop.params_to_torch(got, weights, names, layout=layout, as_tensor=np.asarray)
    np.testing.assert_array_equal(back["fc.weight"], w)
    old = {f"{path}/value": name for path, name in names.items()}  # as adamx 0.1 spelled it
    again = adamx.interop.params_from_torch(weights, old, params, layout=layout)
    np.testing.assert_array_equal(bare(again)["fc"]["kernel"], w.T)

    state = {i: {"step": np.float32(2), "exp_avg": x, "exp_avg_sq": x} for i, x in enumerate((w, b))}
    saved = {"state": state, "param_groups": [{"params": [0, 1], "param_names": ["fc.weight", "fc.bias"]}]}
    tx = adamx.adam(0.1)
    moments = adamx.interop.from_torch(saved, names, params, tx, layout=layout)
    np.testing.assert_array_equal(bare(moments)[0].mu["fc"]["kernel"], w.T)
    optimizer = nnx.Optimizer(Square(), tx, wrt=nnx.Param)
    nnx.update(optimizer.opt_state, nnx.state(bare(moments)))
    how = {"optimizer": "Adam", "layout": layout, "as_tensor": np.asarray}
    back = adamx.interop.to_torch(optimizer.opt_state, saved, names, **how)
    np.testing.assert_array_equal(back["state"][0]["exp_avg"], w)
