"""States of torch's optimizers in and out. torch need not be installed: its arrays come and go through NumPy."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamx.interop.layout import Layout, Names, to_jax, to_torch_axes, torch_name
from adamx.interop.moments import Source, by_path, fill, is_moments
from adamx.interop.torch_format import (
    SECOND,
    entries,
    mu_product,
    numbers,
    second_to_jax,
    second_to_torch,
    steps,
    to_numpy,
)
from adamx.optimizers.amsgrad import AmsgradState, RunningMaxState
from adamx.storage.codec import is_quantized
from adamx.trees import Tree, named_leaves, path_name
from adamx.variables import bare, map_with_path

_SECOND = {*SECOND.values(), "max_exp_avg_sq"}

AMSGRAD = (
    "torch takes the maximum of v and corrects it afterwards, AmsgradState holds that of the corrected v: build tx as "
    "optax.chain(adamx.scale_by_moments(), adamx.optimizers.running_max(corrected=False), adamx.bias_correction(), "
    "adamx.scale_by_lr(learning_rate))"
)


def from_torch(
    state_dict: Mapping[str, Any],
    names: Names,
    params: optax.Params,
    tx: optax.GradientTransformation,
    *,
    layout: Layout,
    order: Sequence[str] | None = None,
) -> Any:
    """Converts the state of a torch optimizer to a state of `tx`, which continues where torch stopped.

    Works for Adam, AdamW, NAdam, Adamax and RAdam. Moments are converted to the storage of `tx`, under masks and in
    groups too; counts of schedules become torch's step. What is not in torch's state is as `tx.init` makes it.

    `tx` must be built with torch's numbers; they are in `state_dict["param_groups"]`. `mu_product` of NAdam is dropped:
    torch's β1 grows by a schedule that Dozat's Algorithm 2 and `adamx.nadam` do not have. Both moments are equal, and
    steps are equal once that schedule has ended, with a large `momentum_decay`.

    torch treats a complex parameter as two real ones and keeps v of each, `E[re²] + i E[im²]`. Here v is `E[|g|²]`,
    their sum. So steps differ from torch's: if both parts are of equal size, they are shorter by √2. The maximum of
    AMSGrad is the sum of torch's two, and AdaMax's u the root of the sum of their squares: upper bounds of what adamx
    keeps.

    Args:
        state_dict: `optimizer.state_dict()`; its arrays may be tensors or NumPy's.
        names: from a parameter's path, "fc/kernel", to its name in torch, "fc.weight": a mapping or a function.
        params: the parameters in JAX.
        tx: the transformation that is to go on.
        layout: how torch's axes move, by path: `adamx.interop.flax_kernels`, `adamx.interop.torch_layout`, or a mapping
            from paths to permutations, {"fc/kernel": (1, 0)}.
        order: torch's names in the order in which the optimizer was given the parameters: `[name for name, _ in
            model.named_parameters()]`, with several groups those of the first, then of the next. None: as the state
            says, where it was given `model.named_parameters()`.

    Returns:
        A state as `tx.init(params)` makes it.

    Raises:
        ValueError: names, order or shapes that do not fit; parameters that were not stepped equally often; a state that
            no path takes; a maximum that only one of the two has.
        TypeError: a tx with `AmsgradState`, which takes another maximum than torch.

    Example:
        >>> import jax.numpy as jnp, numpy as np, adamx
        >>> saved = {"step": np.float32(5), "exp_avg": np.ones((2, 3)), "exp_avg_sq": np.ones((2, 3))}
        >>> state_dict = {"state": {0: saved}, "param_groups": [{"params": [0], "param_names": ["fc.weight"]}]}
        >>> params, names = {"fc": {"kernel": jnp.zeros((3, 2))}}, {"fc/kernel": "fc.weight"}
        >>> layout = adamx.interop.flax_kernels
        >>> state = adamx.interop.from_torch(state_dict, names, params, adamx.adam(1e-3), layout=layout)
        >>> int(state[0].count), state[0].mu["fc"]["kernel"].shape
        (5, (3, 2))
    """
    found, template = entries(state_dict, names, params, order), tx.init(params)
    _check_maximum(template, any("max_exp_avg_sq" in entry for entry in found.values()))
    shapes = {path: np.shape(p) for path, p in named_leaves(params).items()}
    count = jnp.asarray(steps(found), jnp.int32)

    several = len(state_dict["param_groups"]) > 1 and order is not None
    hint = "; order must have the names of torch's groups one group after the other" if several else ""

    def lookup(*fields: str) -> Callable[[str], np.ndarray]:
        def moment(path: str) -> np.ndarray:
            field = next(f for f in fields if f in found[path])
            array = to_numpy(found[path][field])
            array = array if field == "exp_avg" else second_to_jax(field, array)
            try:
                return to_jax(layout, path, array, shapes[path])
            except ValueError as error:
                raise ValueError(f"{error}{hint}") from None

        return moment

    source = Source(count, lookup("exp_avg"), lookup(*set(SECOND.values())))
    largest = lookup("max_exp_avg_sq")

    def filled(path: Any, node: Any) -> Any:
        if is_moments(node):
            return fill(node, source)
        if isinstance(node, RunningMaxState):
            return RunningMaxState(_map_names(lambda name, x: jnp.asarray(largest(name), x.dtype), node.nu_max))
        return node._replace(count=count) if _is_schedule(node) else node

    return map_with_path(filled, template, _is_filled)


def to_torch(
    state: Any,
    state_dict: Mapping[str, Any],
    names: Names,
    *,
    optimizer: str,
    layout: Layout,
    as_tensor: Callable[[np.ndarray], Any],
    order: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The inverse of `from_torch`: returns a dict for `load_state_dict` of a torch optimizer.

    Each part of a complex parameter gets half of v, as for gradients whose real and imaginary parts are of equal size.

    Args:
        state: of adamx, its moments not quantized: `restore_as` makes them so.
        state_dict: that of the torch optimizer; one that was never stepped will do. Its numbers are kept, and give
            the `mu_product` of NAdam.
        names: as for `from_torch`.
        optimizer: the name of torch's class, `type(optimizer).__name__`.
        layout: as for `from_torch`.
        as_tensor: from a NumPy array to a tensor: `torch.from_numpy`.
        order: as for `from_torch`.

    Returns:
        `state_dict` with the moments and counts of `state`.

    Raises:
        ValueError: another optimizer; names or order that do not fit; a parameter of torch without moments.
        TypeError: quantized moments; `AmsgradState`, whose maximum is another than torch's.

    Example:
        >>> import jax.numpy as jnp, numpy as np, adamx
        >>> state = adamx.adam(1e-3).init({"w": jnp.zeros(2)})
        >>> new = {"state": {}, "param_groups": [{"params": [0], "param_names": ["w"]}]}
        >>> how = {"layout": adamx.interop.torch_layout, "as_tensor": np.asarray}  # or torch.from_numpy
        >>> sorted(adamx.interop.to_torch(state, new, {"w": "w"}, optimizer="Adam", **how)["state"][0])
        ['exp_avg', 'exp_avg_sq', 'step']
    """
    if optimizer not in SECOND:
        raise ValueError(f"optimizer must be one of {', '.join(SECOND)}, got {optimizer!r}")
    known = numbers(state_dict, order)
    groups = {i: group for group in state_dict["param_groups"] for i in group["params"]}
    new: dict[int, dict[str, np.ndarray]] = {i: {} for i in known.values()}

    def put(field: str, tree: Tree, count: Any = None) -> None:
        for path, stored in by_path(tree).items():
            if is_quantized(stored):
                raise TypeError(f"torch has no quantized moments, as at {path}: use adamx.interop.restore_as first")
            number = known[torch_name(names, path, list(known))]
            new[number][field] = to_torch_axes(layout, path, _wide(stored))
            if count is not None:
                new[number]["step"] = np.array(count, np.float32)
            if count is not None and optimizer == "NAdam":
                new[number]["mu_product"] = np.array(mu_product(int(count), groups[number]), np.float32)

    for node in jax.tree.leaves(bare(state), is_leaf=_is_filled):
        if isinstance(node, AmsgradState):
            raise TypeError(AMSGRAD)
        if isinstance(node, RunningMaxState):
            put("max_exp_avg_sq", node.nu_max)
        elif is_moments(node):
            put("exp_avg", node.mu, node.count)
            put(SECOND[optimizer], node.nu)
    without = [name for name, i in known.items() if "step" not in new[i]]
    if without:
        raise ValueError(f"the state has no moments for torch's {', '.join(without)}")
    return {**state_dict, "state": {i: _tensors(entry, as_tensor) for i, entry in new.items()}}


def _tensors(entry: Mapping[str, np.ndarray], as_tensor: Callable[[np.ndarray], Any]) -> dict[str, Any]:
    """What torch keeps of a parameter, from arrays with real second moments."""
    second = {field: second_to_torch(field, entry[field], entry["exp_avg"]) for field in _SECOND if field in entry}
    return {field: as_tensor(array) for field, array in {**entry, **second}.items()}


def _wide(stored: Any) -> np.ndarray:
    """A moment as NumPy has it, and torch: half precision as float32."""
    array = np.asarray(stored)
    return array if array.dtype.itemsize > 2 else array.astype(np.float32)


def _is_schedule(node: Any) -> bool:
    """Whether a state is but a count of steps."""
    return getattr(node, "_fields", ()) == ("count",)


def _is_filled(node: Any) -> bool:
    return is_moments(node) or isinstance(node, RunningMaxState) or _is_schedule(node)


def _map_names(f: Callable[[str, Any], Any], tree: Tree) -> Tree:
    return map_with_path(lambda path, x: f(path_name(path), x), tree)


def _check_maximum(template: Any, came: bool) -> None:
    """Raises unless torch's state and that of tx both have a maximum of v, or neither."""
    nodes = jax.tree.leaves(template, is_leaf=_is_filled)
    if any(isinstance(node, AmsgradState) for node in nodes):
        raise TypeError(AMSGRAD)
    has = any(isinstance(node, RunningMaxState) for node in nodes)
    if came and not has:
        raise ValueError(f"torch's state is of AMSGrad, with max_exp_avg_sq, and tx keeps no maximum: {AMSGRAD}")
    if has and not came:
        raise ValueError("tx keeps a maximum of v, and torch's state has no max_exp_avg_sq: it is not of AMSGrad")
