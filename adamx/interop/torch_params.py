"""Parameters of a torch model in and out."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamx.interop.layout import Layout, Names, to_jax, to_torch_axes, torch_name
from adamx.interop.torch_format import to_numpy
from adamx.trees import named_leaves, path_name
from adamx.variables import map_with_path


def params_from_torch(
    state_dict: Mapping[str, Any], names: Names, params: optax.Params, *, layout: Layout
) -> optax.Params:
    """Converts the parameters of a torch model to the tree of a JAX model.

    Args:
        state_dict: `model.state_dict()`.
        names: from a parameter's path to its name in torch, see `from_torch`.
        params: the parameters of the JAX model, or their `jax.ShapeDtypeStruct`: paths, shapes and dtypes.
        layout: how torch's axes move, see `from_torch`.

    Returns:
        A tree like `params`.

    Raises:
        ValueError: names or shapes that do not fit.

    Example:
        >>> import jax.numpy as jnp, numpy as np, adamx
        >>> params, names = {"fc": {"kernel": jnp.zeros((3, 2))}}, {"fc/kernel": "fc.weight"}
        >>> weights = {"fc.weight": np.arange(6.0).reshape(2, 3)}
        >>> layout = adamx.interop.flax_kernels
        >>> adamx.interop.params_from_torch(weights, names, params, layout=layout)["fc"]["kernel"][:, 1]
        Array([3., 4., 5.], dtype=float32)
    """

    def leaf(path: Any, p: Any) -> jax.Array:
        name = path_name(path)
        array = to_numpy(state_dict[torch_name(names, name, list(state_dict))])
        return jnp.asarray(to_jax(layout, name, array, np.shape(p)), jnp.result_type(p))

    return map_with_path(leaf, params)


def params_to_torch(
    params: optax.Params,
    state_dict: Mapping[str, Any],
    names: Names,
    *,
    layout: Layout,
    as_tensor: Callable[[Any], Any],
) -> dict[str, Any]:
    """The inverse of `params_from_torch`: returns a dict for `model.load_state_dict`.

    Args:
        params: of the JAX model.
        state_dict: `model.state_dict()`; what no path has, running means for example, stays.
        names: see `from_torch`.
        layout: how axes are permuted, see `from_torch`.
        as_tensor: from a NumPy array to a tensor: `torch.from_numpy`.

    Returns:
        `state_dict` with the parameters in it.

    Raises:
        ValueError: names that do not fit.

    Example:
        >>> import jax.numpy as jnp, numpy as np, adamx
        >>> params, layout = {"fc": {"kernel": jnp.zeros((3, 2))}}, adamx.interop.flax_kernels
        >>> weights, names = {"fc.weight": np.ones((2, 3))}, {"fc/kernel": "fc.weight"}
        >>> new = adamx.interop.params_to_torch(params, weights, names, layout=layout, as_tensor=np.asarray)
        >>> new["fc.weight"].shape
        (2, 3)
    """
    found = dict(state_dict)
    for name, p in named_leaves(params).items():
        array = np.asarray(p)
        wide = array if array.dtype.itemsize > 2 else array.astype(np.float32)
        found[torch_name(names, name, list(state_dict))] = as_tensor(to_torch_axes(layout, name, wide))
    return found
