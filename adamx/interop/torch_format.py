"""What torch writes into the state of an optimizer, read without torch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optax

from adamx.interop.layout import Names, torch_name
from adamx.trees import named_leaves

SECOND = {
    "Adam": "exp_avg_sq",
    "AdamW": "exp_avg_sq",
    "NAdam": "exp_avg_sq",
    "RAdam": "exp_avg_sq",
    "Adamax": "exp_inf",
}
"""What torch's optimizers call v. In all of them m is `exp_avg`, and AMSGrad's maximum `max_exp_avg_sq`."""


def to_numpy(tensor: Any) -> np.ndarray:
    """A copy of a tensor of torch, or of anything that NumPy takes; bfloat16, which torch does not give, as float32.

    A copy, because torch writes in place, and JAX takes memory of NumPy as it is.
    """
    if not hasattr(tensor, "detach"):
        return np.array(tensor)
    host = tensor.detach().cpu()
    return np.array((host.float() if "bfloat16" in str(host.dtype) else host).numpy())


def second_to_jax(field: str, v: np.ndarray) -> np.ndarray:
    """The second moment of complex parameters as a real number.

    torch takes a complex parameter for two real ones, and keeps an average for each, `E[re²] + i E[im²]`. Adam's v here
    is that of the magnitude, `E[|g|²]`, their sum. Of the largest real and imaginary part, Adamax's, it is the root of
    the sum of squares, at least the largest magnitude.
    """
    if not np.iscomplexobj(v):
        return v
    return np.abs(v) if field == "exp_inf" else np.real(v) + np.imag(v)


def second_to_torch(field: str, v: np.ndarray, m: np.ndarray) -> np.ndarray:
    """The inverse for gradients whose real and imaginary parts are alike, where m is complex."""
    if not np.iscomplexobj(m):
        return v
    part = v / np.sqrt(v.dtype.type(2)) if field == "exp_inf" else v / 2
    return (part + 1j * part).astype(m.dtype)


def numbers(state_dict: Mapping[str, Any], order: Sequence[str] | None) -> dict[str, int]:
    """The number under which an optimizer's state keeps each parameter, by torch's name.

    Parameters are numbered in the order of the groups. Their names stand in the groups where the optimizer was given
    `model.named_parameters()`.

    Raises:
        ValueError: no names, or not as many as there are parameters.
    """
    groups = state_dict["param_groups"]
    found = [number for group in groups for number in group["params"]]
    named = [name for group in groups for name in group.get("param_names", [None] * len(group["params"]))]
    if order is None and None in named:
        how = "pass order=[name for name, _ in model.named_parameters()], the names"
        if len(groups) > 1:
            how = f"in groups of {_sizes(groups)}: pass order=, the names of the first group, then those of the next,"
        raise ValueError(
            f"torch's state numbers its parameters: {how} in the order in which the optimizer was given the parameters"
        )
    names = list(named if order is None else order)
    if len(names) != len(found) or len(set(names)) != len(names):
        of = f", {_sizes(groups)} in its {len(groups)} groups" if len(groups) > 1 else ""
        raise ValueError(
            f"order must name each of the {len(found)} parameters of torch's optimizer once{of}, got {names}"
        )
    if names != named and set(names) == set(named):
        raise ValueError(
            f"order has {names}, torch's state says {named}: its optimizer was given the parameters in that order, "
            "group after group. Leave order out"
        )
    return dict(zip(names, found, strict=True))


def _sizes(groups: Sequence[Mapping[str, Any]]) -> str:
    return " and ".join(str(len(group["params"])) for group in groups)


def entries(
    state_dict: Mapping[str, Any], names: Names, params: optax.Params, order: Sequence[str] | None
) -> dict[str, Mapping[str, Any]]:
    """What the state keeps of each parameter, by the path of the parameter in JAX.

    Raises:
        ValueError: a parameter that torch has not stepped; one with a state that no path takes; two paths for one.
    """
    known = numbers(state_dict, order)
    taken = {path: torch_name(names, path, list(known)) for path in named_leaves(params)}
    if len(set(taken.values())) != len(taken):
        raise ValueError(f"names gives two paths the same parameter of torch: {taken}")
    for path, name in taken.items():
        if known[name] not in state_dict["state"]:
            raise ValueError(f"torch's state has nothing for {name}, at {path}: it was never stepped")
    left = [name for name, i in known.items() if name not in taken.values() and i in state_dict["state"]]
    if left:
        raise ValueError(f"no path takes torch's {', '.join(left)}: delete from state_dict what is to be dropped")
    return {path: state_dict["state"][known[name]] for path, name in taken.items()}


def steps(found: Mapping[str, Mapping[str, Any]]) -> int:
    """The number of steps taken, which torch counts for each parameter.

    Raises:
        ValueError: it differs from one to the other.
    """
    counts = {path: int(to_numpy(entry["step"])) for path, entry in found.items()}
    if len(set(counts.values())) > 1:
        low, high = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        raise ValueError(
            f"torch stepped {high} {counts[high]} times and {low} {counts[low]} times; adamx counts once for all: give "
            "those that were stepped together a tx and a from_torch of their own"
        )
    return next(iter(counts.values()), 0)


def mu_product(count: int, group: Mapping[str, Any]) -> float:
    """NAdam's product of momenta, `Π β1 (1 - 0.96^(i ψ) / 2)` for i = 1..t, with the β1 and ψ of torch's group."""
    b1, decay = float(group["betas"][0]), float(group["momentum_decay"])
    factors = b1 * (1.0 - 0.5 * 0.96 ** (np.arange(1, count + 1) * decay))
    return float(np.prod(factors))
