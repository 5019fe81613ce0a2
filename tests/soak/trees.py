"""Random trees, optimizers, storages and wrappers, and what may go wrong in a tree: strategies of hypothesis."""

import collections
import dataclasses
import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from hypothesis import strategies as st

import adamx
from adamx.trees import path_name
from tests.conftest import Layer
from tests.family import FAMILY


class Leaf(NamedTuple):
    """What a parameter and its gradient are; as short as can be in the message of a failure."""

    shape: tuple[int, ...]
    param: str
    gradient: str
    size: float


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Block:
    inner: Any
    outer: Any


REAL = ["float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "Python", "numpy"]
DTYPES = [*REAL, "complex64"]
SHAPES = [(), (3,), (16,), (2, 3), (0,), (0, 2), (2, 1, 16)]
SIZES = [0.0, 1.0, 1e-30, 1e30]


def is_leaf(node):
    return isinstance(node, Leaf)


@st.composite
def leaf(draw):
    param = draw(st.sampled_from(DTYPES))
    gradient = draw(st.sampled_from(DTYPES if param == "complex64" else REAL))
    shape = () if "Python" in (param, gradient) else draw(st.sampled_from(SHAPES))
    return Leaf(shape, param, gradient, draw(st.sampled_from(SIZES)))


names = st.sampled_from(["w", "b", "a/b", "0", "", "β", "x.y"])


def nodes(children):
    pair = st.tuples(children, children)
    return (
        st.lists(children, max_size=3)
        | st.lists(children, max_size=3).map(tuple)
        | st.dictionaries(names, children, max_size=3)
        | st.dictionaries(names, children, max_size=3).map(collections.OrderedDict)
        | pair.map(lambda two: Layer(*two))
        | pair.map(lambda two: Block(*two))
    )


# None alone would be no parameters at all to `update`.
trees = st.recursive(leaf() | st.none(), nodes, max_leaves=6).filter(lambda tree: tree is not None)


def array(shape, dtype, value):
    """Numbers of one sign and size, as far as the dtype goes."""
    if dtype == "Python":
        return float(np.clip(value, -3e38, 3e38))
    kind = {"numpy": "float64"}.get(dtype, dtype)
    limit = float(jnp.finfo(kind).max) if kind != "float64" else 3e38
    x = np.full(shape, min(value, limit), "float64" if kind != "complex64" else kind)
    return x if dtype == "numpy" else jnp.asarray(x, kind)


def params_of(tree):
    return jax.tree.map(lambda x: array(x.shape, x.param, 0.5), tree, is_leaf=is_leaf)


def gradients_of(tree):
    return jax.tree.map(lambda x: array(x.shape, x.gradient, x.size), tree, is_leaf=is_leaf)


def leaves_of(tree):
    return jax.tree.leaves(tree, is_leaf=is_leaf)


def has(tree, *dtypes):
    """Whether one of these words is in the dtype of a parameter or gradient."""
    return any(word in x.param + x.gradient for x in leaves_of(tree) for word in dtypes)


def without_special(tree):
    return not has(tree, "float8", "complex")


MAKERS = {name: entry.make for name, entry in FAMILY.items()} | {
    "adam": adamx.adam,
    "adamw": adamx.adamw,
}
INT8 = adamx.storage.Int8(block_size=16, min_size=0)
STORAGES = {
    "plain": {},
    "bfloat16": {"mu_dtype": "bfloat16", "nu_dtype": "bfloat16"},
    "m bfloat16": {"mu_dtype": "bfloat16"},
    "float8": {"mu_dtype": "float8_e5m2", "nu_dtype": "float8_e4m3fn"},
    "int8": {"mu_dtype": INT8, "nu_dtype": INT8},
}
OURS = {
    "alone": lambda tx: tx,
    "master weights": adamx.with_master_weights,
    "stochastic rounding": adamx.with_stochastic_rounding,
    "skip step": adamx.skip_nonfinite,
    "skip master": lambda tx: adamx.skip_nonfinite(adamx.with_master_weights(tx)),
}
THEIRS = {
    "chain": lambda tx: optax.chain(tx, optax.identity()),
    "masked": lambda tx: optax.masked(tx, lambda tree: jax.tree.map(lambda x: jnp.ndim(x) > 0, tree)),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 2),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
}
WRAPPERS = OURS | THEIRS
FLAWS = ["shape", "integer", "boolean", "string", "complex", "None", "deeper"]


class Case(NamedTuple):
    """One run: an optimizer, a tree for it, and how its steps are taken."""

    make: str
    storage: str
    wrapper: str
    tree: Any
    how: str
    flaw: str
    at: int

    def transformation(self):
        return WRAPPERS[self.wrapper](MAKERS[self.make](0.5, **self.arguments()))

    def arguments(self):
        accepted = inspect.signature(MAKERS[self.make]).parameters
        return {name: value for name, value in STORAGES[self.storage].items() if name in accepted}

    def refusal(self):
        """What the documentation says that this sound tree is refused with; "" if it must work."""
        entry, seen = FAMILY.get(self.make), [x for x in leaves_of(self.tree) if x.shape or self.wrapper != "masked"]
        if not any(x.param == "complex64" for x in seen):
            return ""
        if "mu_dtype" in self.arguments() and self.storage != "int8":  # which leaves complex moments as they are
            return "cannot be stored as"
        return entry.no_complex if entry else ""

    def trees(self):
        """Parameters, gradients, and the path of the flaw; "" if there is none."""
        params, gradients = params_of(self.tree), gradients_of(self.tree)
        leaves, treedef = jax.tree_util.tree_flatten_with_path(gradients)
        if not self.flaw or not leaves:
            return params, gradients, ""
        i = self.at % len(leaves)
        values = [x for _, x in leaves]
        shape, real = np.shape(values[i]), not jnp.iscomplexobj(jax.tree.leaves(params)[i])
        values[i] = {
            "shape": jnp.ones((*shape, 2)),
            "integer": jnp.ones(shape, int),
            "boolean": jnp.ones(shape, bool),
            "string": "relu",
            "complex": jnp.ones(shape, complex) if real else jnp.ones(shape, int),
            "None": None,
            "deeper": {"z": values[i]},
        }[self.flaw]
        return params, treedef.unflatten(values), path_name(leaves[i][0])


@st.composite
def cases(draw):
    wrapper = draw(st.sampled_from(sorted(WRAPPERS)))
    flaw = draw(st.sampled_from([""] * 14 + FLAWS)) if wrapper in OURS else ""
    # A float8 gradient gives a float32 update, and a real one for a complex parameter a complex update; wrappers that
    # add updates or choose between them and zeros expect the gradient's dtype, or float32.
    tree = draw(trees.filter(without_special) if wrapper in ("apply_if_finite", "MultiSteps") else trees)
    return Case(
        draw(st.sampled_from(sorted(MAKERS))),
        draw(st.sampled_from(sorted(STORAGES))),
        wrapper,
        tree,
        # JAX itself refuses a string as the argument of a compiled function.
        "op by op" if flaw == "string" else draw(st.sampled_from(["traced"] * 6 + ["op by op"] * 3 + ["compiled"])),
        flaw,
        draw(st.integers(0, 5)),
    )
