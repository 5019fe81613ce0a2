"""What tests of `adamx.with_norms` share: a tree, its norms in float64, and the ways to take a step."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamx.metrics import read_norms
from tests.backends import composed, jitted

ROUNDED = 2.0**-16
"""A kernel adds at most 256 squares in a row in float32, within 2^-16 of their sum; XLA adds in trees."""

PATTERNS = ("kernel$", "^head/")
WAYS = {"step": jitted, "update": composed, "xla": lambda tx: jitted(tx, backend="xla")}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def tree(seed, dtype="float32"):
    random = np.random.default_rng(seed)
    kernel, bias, head = (jnp.asarray(random.standard_normal(n), dtype) for n in ((90, 512), (512,), (20_001,)))
    return {"body": {"kernel": kernel, "bias": bias}, "head": {"kernel": head}}


def norm(tree, pattern="."):
    paths = jax.tree_util.tree_leaves_with_path(tree)
    names = ["/".join(str(key.key) for key in path) for path, _ in paths]
    wide = [np.asarray(x, complex if jnp.iscomplexobj(x) else np.float64) for _, x in paths]
    return np.sqrt(sum(np.sum(np.abs(x) ** 2) for name, x in zip(names, wide, strict=True) if re.search(pattern, name)))


def expected(gradients, before, after, patterns=PATTERNS):
    """The norms of a step, as `read_norms` names them."""
    moved = jax.tree.map(
        lambda a, b: np.asarray(b, complex if jnp.iscomplexobj(b) else float) - np.asarray(a), before, after
    )
    names = {"all": ".", **{pattern: pattern for pattern in patterns}}
    kinds = {"gradients": gradients, "updates": moved, "params": after}
    return {f"{kind}/{name}": norm(x, pattern) for kind, x in kinds.items() for name, pattern in names.items()}


def assert_norms(state, wanted, rtol=ROUNDED):
    got = read_norms(state)
    assert got.keys() == wanted.keys()
    assert {x.dtype for x in got.values()} == {jnp.dtype("float32")}
    for name, x in wanted.items():
        np.testing.assert_allclose(got[name], x, rtol=1e-4 if "updates" in name else rtol, err_msg=name)
