"""NAdam, Dozat (2016): Adam with Nesterov's momentum."""

import functools

from adamx.optimizers.adam import adam
from adamx.optimizers.adamw import adamw

nadam = functools.partial(adam, nesterov=True)
nadam.__doc__ = """NAdam, a drop-in for `optax.nadam`: `adam` with the stage `nesterov`.

Dozat, "Incorporating Nesterov Momentum into Adam" (2016), Algorithm 2. torch's NAdam lets β1 grow with the step, by
`momentum_decay`; it equals this one only where that schedule has run out. Arguments, state and errors are those of
`adam`.

Example:
    >>> import jax.numpy as jnp, adamx
    >>> tx = adamx.nadam(0.1)
    >>> tx.update(jnp.array([2.0]), tx.init(jnp.zeros(1)))[0].round(4)
    Array([-0.14739999], dtype=float32)
"""

nadamw = functools.partial(adamw, nesterov=True)
nadamw.__doc__ = """NAdam with weight decay, a drop-in for `optax.nadamw`: `adamw` with the stage `nesterov`.

Arguments, state and errors are those of `adamw`.

Example:
    >>> import jax.numpy as jnp, adamx
    >>> tx, params = adamx.nadamw(0.1, weight_decay=0.5), jnp.ones(1)
    >>> tx.update(jnp.zeros(1), tx.init(params), params)[0]
    Array([-0.05], dtype=float32)
"""

__test__ = {"nadam": nadam.__doc__, "nadamw": nadamw.__doc__}
