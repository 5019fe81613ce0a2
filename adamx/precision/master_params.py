"""The float32 weights behind half-precision parameters, out of an optimizer's state and into it."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx.core.leaf import weight_behind
from adamx.precision.master_weights import MASTERS
from adamx.storage.split import nearest_even, split
from adamx.trees import check_fits, map_paths, named_leaves, path_name
from adamx.variables import bare


def _is_holder(node: Any) -> bool:
    return isinstance(node, MASTERS)


def _holders(state: Any) -> list[Any]:
    """The states of `with_master_weights` in a state."""
    return [node for node in jax.tree.leaves(state, is_leaf=_is_holder) if _is_holder(node)]


def _check_holders(state: Any) -> None:
    """Raises a TypeError if there is no state of `with_master_weights` in a state."""
    if not _holders(state):
        raise TypeError(f"expected a state with a MasterWeightsState in it, got {type(state).__name__}")


def master_params(state: Any, params: optax.Params) -> optax.Params:
    """The float32 weights behind half-precision parameters.

    Args:
        state: of `with_master_weights`, or any state that contains such, one for each group of `optax.partition` say.
        params: the parameters that belong to it.

    Returns:
        A tree like the parameters. A half-precision leaf with a master weight is float32, any other leaf is as it was.
        Of float16 and float8 leaves it is the weight that the state keeps, whatever has set the parameter since.

    Raises:
        TypeError: a state with no `MasterWeightsState` in it, or with two that hold the weight of one leaf.
        ValueError: a master weight of a leaf that params does not have.

    Example:
        >>> import jax.numpy as jnp, optax, adamx
        >>> params = jnp.ones(2, jnp.bfloat16)
        >>> state = adamx.with_master_weights(optax.sgd(0.1)).init(params)
        >>> adamx.master_params(state, params)
        Array([1., 1.], dtype=float32)
    """
    _check_holders(bare(state))
    return weights_behind(state, params)


def weights_behind(state: Any, params: optax.Params) -> optax.Params:
    """`master_params` of any state: where it has no `MasterWeightsState` the weights are the parameters.

    Args:
        state: of any transformation.
        params: the parameters that belong to it.

    Raises:
        TypeError, ValueError: as `master_params` does.
    """
    remainders: dict[str, Any] = {}
    for node in _holders(bare(state)):
        for name, remainder in named_leaves(node.remainder).items():
            if name in remainders:
                raise TypeError(f"the state has two MasterWeightsState with the weight of {name}: pass one of them")
            remainders[name] = remainder
    unknown = sorted(remainders.keys() - named_leaves(params).keys())
    if unknown:
        raise ValueError(f"the state has a master weight for {unknown[0]}, which is no leaf of params")

    def weight(path: Any, p: Any) -> tuple[jax.Array]:
        kept = remainders.get(path_name(path))
        whole = kept is not None and jnp.result_type(p) != jnp.bfloat16
        if kept is None:
            return (jnp.asarray(p),)
        return (jnp.asarray(kept) if whole else weight_behind(p, kept),)

    return map_paths(weight, 1, params)[0]


def _single(w: Any, narrow: bool) -> jax.Array:
    """A weight in float32; narrow: rounded to nearest, to 24 bits."""
    w = jnp.asarray(w, jnp.float32)
    return jax.lax.bitcast_convert_type(nearest_even(w, 8), jnp.float32) if narrow else w


def set_master_params(state: Any, params: optax.Params, weights: optax.Params) -> tuple[optax.Params, Any]:
    """Sets the float32 master weights of half-precision parameters, for example at the start of a run.

    A parameter becomes its weight rounded to nearest, and the state keeps what the rounding drops. Training continues
    from the float32 weights: the first steps are bitwise identical to those of float32 training. A state of 24
    bits keeps the weights rounded to nearest. The inverse of `master_params`, and the way to load float32 weights into
    a run.

    Args:
        state: of `with_master_weights`, or any state that contains such.
        params: the parameters that belong to it; they tell dtypes.
        weights: a tree of the same structure and shapes, in float32 or wider.

    Returns:
        Parameters and state; leaves without a master weight are the weights in their own dtype.

    Raises:
        TypeError: a state with no `MasterWeightsState` in it.
        ValueError: weights of another structure or shape than the parameters.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> weights = jnp.array([0.1, 0.2])
        >>> tx, params = adamx.with_master_weights(adamx.adam(1e-3)), weights.astype(jnp.bfloat16)
        >>> params, state = adamx.set_master_params(tx.init(params), params, weights)
        >>> params.dtype, adamx.master_params(state, params)
        (dtype(bfloat16), Array([0.1, 0.2], dtype=float32))
    """
    _check_holders(bare(state))
    check_fits(weights, params, "weight", "parameter")
    behind = named_leaves(weights)
    remainders = [named_leaves(node.remainder) for node in _holders(bare(state))]
    at_24_bits = {name for found in remainders for name, kept in found.items() if kept.dtype == jnp.uint8}

    def rounded(path: Any, p: Any, w: Any) -> tuple[jax.Array]:
        w, dtype = jnp.asarray(w), jnp.result_type(p)
        narrow = path_name(path) in at_24_bits
        return (split(_single(w, narrow))[0] if dtype == jnp.bfloat16 else w.astype(dtype),)

    def remaining(path: Any, kept: Any) -> tuple[jax.Array]:
        w = _single(behind[path_name(path)], kept.dtype == jnp.uint8)
        return (w if jnp.issubdtype(kept.dtype, jnp.floating) else split(w, kept.dtype)[1],)

    def filled(node: Any) -> Any:
        return node._replace(remainder=map_paths(remaining, 1, node.remainder)[0]) if _is_holder(node) else node

    return map_paths(rounded, 1, params, weights)[0], jax.tree.map(filled, state, is_leaf=_is_holder)
