"""Another storage for the moments, in the middle of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx.interop.check import SHOWN, differences
from adamx.interop.moments import Source, by_path, fill, is_moments
from adamx.interop.optax import from_optax
from adamx.storage.choice import decode
from adamx.storage.codec import shapes
from adamx.storage.int4 import is_over_root, root_of
from adamx.trees import named_leaves, path_name
from adamx.variables import bare, flatten_with_path


def restore_as(tx: optax.GradientTransformation, state: Any, params: optax.Params) -> Any:
    """Converts a state to the storage of another optimizer: from float32 to int8, from plain to dithered, and back.

    Moments are decoded and rounded to nearest into the dtypes and codecs of `tx`; widening is exact. Counts, schedules,
    remainders and everything else are taken over as they are. A state of Adam becomes one of AMSGrad, whose maximum
    begins with the next v̂; the way back drops the maximum. States of optax are accepted.

    Not checked: what the moments mean. AdaMax keeps the largest gradient as `nu`, which is no v: use a state of
    `adamax` with `adamax` only.

    Args:
        tx: the transformation that is to go on.
        state: of a transformation that differs from it in the storage of moments, or as AMSGrad does from Adam.
        params: the parameters, or their `jax.ShapeDtypeStruct`.

    Returns:
        A state as `tx.init(params)` makes it.

    Raises:
        TypeError: what cannot be carried, by path: a state with parts that the other has not, moments of other shapes,
            a codec of your own.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> params = {"w": jnp.ones((64, 128))}
        >>> wide, codec = adamx.adam(1e-3), adamx.storage.Int8(min_size=4096)
        >>> narrow = adamx.adam(1e-3, mu_dtype="bfloat16", nu_dtype=codec)
        >>> _, state = wide.update(params, wide.init(params), params)
        >>> smaller = adamx.interop.restore_as(narrow, state, params)
        >>> adamx.state_bytes(state).total, adamx.state_bytes(smaller).total
        (65540, 25092)
        >>> adamx.interop.restore_as(wide, smaller, params)[0].mu["w"][0, :2].round(3)
        Array([0.1, 0.1], dtype=float32)
    """
    expected, state = jax.eval_shape(tx.init, params), from_optax(state)
    wanted, treedef = flatten_with_path(expected, is_moments)
    came = named_leaves(bare(state), is_moments)
    _check_fits({path_name(path): node for path, node in wanted}, came)

    def carried(path: Sequence[Any], node: Any) -> Any:
        before = came[path_name(path)]
        return fill(node, _source(path, before)) if is_moments(node) else before

    return treedef.unflatten([carried(path, node) for path, node in wanted])


def _check_fits(wanted: Mapping[str, Any], came: Mapping[str, Any]) -> None:
    """Raises a TypeError that lists what cannot be carried."""
    found = [f"nothing to put at {path}" for path in wanted.keys() - came.keys()]
    found += [f"no place for {path}" for path in came.keys() - wanted.keys()]
    for path in wanted.keys() & came.keys():
        here, there = wanted[path], came[path]
        if is_moments(here) != is_moments(there):
            found.append(f"{path} is {type(there).__name__}, expected {type(here).__name__}")
        elif is_moments(here):
            pairs = [(f, getattr(here, f), getattr(there, f)) for f in ("mu", "nu")]
            found += [
                f"{path}/{f}: {w}"
                for f, x, y in pairs
                for kind, w in differences(shapes(x), shapes(y))
                if kind != "dtype"
            ]
        else:
            found += [f"{path}: {words}" for _, words in differences(here, there)]
    if found:
        shown = "; ".join(sorted(found)[:SHOWN])
        raise TypeError(
            f"the state cannot be carried to this transformation: {shown}. restore_as changes how moments are stored; "
            "tx must otherwise be built as the transformation that made the state"
        )


def _source(path: Sequence[Any], node: Any) -> Source:
    """The moments of a node, decoded when they are asked for."""

    def lookup(field: str) -> Any:
        moments, squares = by_path(getattr(node, field)), by_path(node.nu)
        under = path_name((*path, jax.tree_util.GetAttrKey(field)))

        def moment(name: str) -> jax.Array:
            where = under if name == path_name(()) else f"{under}/{name}"
            found = decode(where, moments[name])
            return found * root_of(decode(where, squares[name])) if is_over_root(moments[name]) else found

        return moment

    maximum = lookup("nu_max") if hasattr(node, "nu_max") else None
    return Source(jnp.asarray(node.count), lookup("mu"), lookup("nu"), maximum)
