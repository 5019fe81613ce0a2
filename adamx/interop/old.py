"""States of adamx 0.1 in the layout of today."""

from typing import Any

import jax
import optax

from adamx.interop.check import check_restored
from adamx.trees import named_leaves, path_name
from adamx.variables import bare, flatten_with_path


def from_0_1(tx: optax.GradientTransformation, saved: Any, params: optax.Params) -> Any:
    """A state that adamx 0.1 made, in the layout that `tx.init(params)` has today.

    0.1 kept dithered moments in a container of their own, with a second counter, `step`, beside `count`. The two are
    equal, so that the dither goes on with the same bits. Everything else has stayed where it was.

    Args:
        tx: the transformation that made the state, built with the same arguments.
        saved: the state: as 0.1 had it, or in dicts and lists, as a checkpoint restores without a template.
        params: the parameters, or their `jax.ShapeDtypeStruct`.

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
    came = named_leaves(bare(saved))
    names = [path_name(path) for path, _ in found]
    dropped = {name for name in came if _is_clock(name) and name not in names}
    if came.keys() - dropped != set(names):
        return check_restored(tx, {name: came[name] for name in came.keys() - dropped}, params)  # raises
    return check_restored(tx, treedef.unflatten([came[name] for name in names]), params)


def _is_clock(name: str) -> bool:
    """Whether a path is that of the second counter of dithered moments."""
    return name.rpartition("/")[2] == "step"
