"""Every optimizer of the family, one line each: `test_family.py` runs all of its tests on all of them.

To add one, add a line; traits are only for what it cannot do, and say so.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx

ULP = 2.0**-23


class Entry(NamedTuple):
    """An optimizer and its traits.

    Attributes:
        make: from a learning rate (and keyword arguments) to the optimizer.
        peer: the name of its equal in optax, whose arguments and state it shares; "" if there is none.
        never_falls: fields of its state that keep a maximum.
        no_complex: what the TypeError for complex parameters says; "" where complex parameters work.
        wrong: arguments of its own, each with a value that it must refuse.
        unbounded: its steps grow with the gradient, at least at first.
        int8_m: whether m may be Int8 beside an Int8 v.
        op_by_op: how far its updates outside jit may be from those inside, relative to them.
    """

    make: Callable[..., Any]
    peer: str = ""
    never_falls: tuple[str, ...] = ()
    no_complex: str = ""
    wrong: dict[str, Any] = {}  # noqa: RUF012 - never written to
    unbounded: bool = False
    int8_m: bool = True
    op_by_op: float = 64 * ULP


FAMILY = {
    "adam": Entry(adamx.adam, "adam"),
    "adamw": Entry(adamx.adamw, "adamw", wrong={"weight_decay": -1.0}),
    "amsgrad": Entry(adamx.amsgrad, "amsgrad", never_falls=("nu_max",), wrong={"bias_correction_mu": 1}),
    "nadam": Entry(adamx.nadam, "nadam"),
    "nadamw": Entry(adamx.nadamw, "nadamw", wrong={"weight_decay": -1.0}),
    "adamax": Entry(adamx.adamax, "adamax", int8_m=False),
    "adamaxw": Entry(adamx.adamaxw, "adamaxw", int8_m=False, wrong={"weight_decay": -1.0}),
    # b2**t op by op takes 1 - b2**t off by 7e-6, which of ρ = 1999 - 1994 is 0.014, and of r 0.7 %.
    "radam": Entry(adamx.radam, "radam", wrong={"threshold": 3.0, "nesterov": "no"}, unbounded=True, op_by_op=0.01),
    "adabelief": Entry(adamx.adabelief, "adabelief", wrong={"nesterov": "no"}),
    "adam_atan2": Entry(adamx.adam_atan2, no_complex="split_real_and_imaginary", wrong={"a": -1.0, "b": -1.0}),
    "adamw_atan2": Entry(adamx.adamw_atan2, no_complex="split_real_and_imaginary", wrong={"weight_decay": -1.0}),
    "cautious_adamw": Entry(adamx.cautious_adamw, wrong={"weight_decay": -1.0}),
    "stable_adamw": Entry(adamx.stable_adamw, wrong={"weight_decay": -1.0}),
    # Its m is 0 behind the first gradient, from where it can only rise.
    "adopt": Entry(adamx.adopt, never_falls=("mu",), wrong={"nesterov": "no", "use_clipping": 1}),
    "ademamix": Entry(adamx.ademamix, wrong={"b3": 1.0, "alpha": -1.0}),
    # A spike is clipped to the norm that every other gradient here has as well.
    "mars": Entry(adamx.mars, never_falls=("mu", "nu"), wrong={"gamma": -1.0, "max_norm": -1.0}),
}

each = pytest.mark.parametrize("entry", FAMILY.values(), ids=FAMILY)


def made(entry: Entry, storage: dict[str, Any]) -> Any:
    """The optimizer with its moments so stored; skips the test where it refuses the storage."""
    try:
        return entry.make(0.1, **storage)
    except ValueError as error:
        pytest.skip(str(error))


def normal(seed: int, *shape: int, dtype: Any = jnp.float32) -> jax.Array:
    """Normal numbers."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)
