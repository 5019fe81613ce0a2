"""States of adamx 0.1 in the layout of today."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx.interop.check import check_restored
from adamx.interop.moments import encode
from adamx.storage import Int8
from adamx.storage.codec import is_quantized
from adamx.trees import named_leaves, path_name
from adamx.variables import bare, flatten_with_path


def from_0_1(
    tx: optax.GradientTransformation, saved: Any, params: optax.Params, *, block_size: int | None = None
) -> Any:
    """Converts a state of adamx 0.1 to the layout of `tx.init(params)`.

    0.1 kept dithered moments in a container of their own, with a second counter, `step`, beside `count`. The two are
    equal, so the dither continues bitwise identically. It kept the two numbers of a block in two arrays. In 0.1 `Int8`
    took blocks of any length; those whose length is no power of two are decoded and rounded to nearest into the blocks
    of `tx`. Everything else has not changed.

    Args:
        tx: the transformation that made the state, built with the same arguments but for the length of blocks.
        saved: the state: as 0.1 had it, or in dicts and lists, as a checkpoint restores without a template.
        params: the parameters, or their `jax.ShapeDtypeStruct`.
        block_size: of the `Int8` moments of the state, where `tx` has another.

    Returns:
        A state for `tx`.

    Raises:
        TypeError: it is not a state of this transformation; the error lists the paths.

    Example:
        >>> import jax.numpy as jnp, adamx
        >>> tx, params = adamx.adam(1e-3, nu_dtype="bfloat16"), jnp.ones(2)
        >>> now = tx.init(params)
        >>> saved = [{"count": now[0].count, "mu": now[0].mu, "nu": now[0].nu, "step": jnp.uint32(0)}, {}]
        >>> type(adamx.interop.from_0_1(tx, saved, params)[0]).__name__
        'MomentsState'
    """
    expected = jax.eval_shape(tx.init, params)
    found, treedef = flatten_with_path(expected)
    came = _with_scales(named_leaves(bare(saved)))
    names = [path_name(path) for path, _ in found]
    dropped = {name for name in came if _is_clock(name) and name not in names}
    if came.keys() - dropped != set(names):
        return check_restored(tx, {name: came[name] for name in came.keys() - dropped}, params)  # raises
    state = treedef.unflatten([came[name] for name in names])
    if block_size is not None:
        state = jax.tree.map(functools.partial(_in_blocks_of, block_size), expected, state, is_leaf=is_quantized)
    return check_restored(tx, state, params)


def _in_blocks_of(block_size: int, like: Any, stored: Any) -> Any:
    """What an `Int8` of another block size keeps, in the blocks of `like`; everything else as it is."""
    if not is_quantized(like) or not jnp.issubdtype(like.codes.dtype, jnp.integer):
        return stored
    moment = Int8(block_size).decode(jax.tree.map(jnp.asarray, stored), jnp.dtype(jnp.float32))
    return encode(moment, like, square=like.codes.dtype == jnp.uint8)


def _with_scales(came: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves with the numbers of each block in one array."""
    found = dict(came)
    for codes in [name for name in came if name.rpartition("/")[2] == "codes"]:
        stem = codes.removesuffix("codes")
        numbers = [found.pop(stem + name) for name in ("scale", "top") if stem + name in came]
        if numbers:
            found[f"{stem}scales"] = jnp.stack(numbers, axis=-1)
    return found


def _is_clock(name: str) -> bool:
    """Whether a path is that of the second counter of dithered moments."""
    return name.rpartition("/")[2] == "step"
