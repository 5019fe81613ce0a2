"""Flax's own optimizer and train state with `adamx.step` inside. Needs flax: pip install flax."""

from typing import Any

import jax
from flax import nnx
from flax.training import train_state

from adamx.interop.check import differences
from adamx.kernels.step import step
from adamx.variables import bare, has_variables, is_variable


class Optimizer(nnx.Optimizer[Any]):
    """`flax.nnx.Optimizer` whose update is `adamx.step`: one pass over memory if the optimizer has one.

    Arguments and attributes are those of `flax.nnx.Optimizer`. `update` returns None instead of the updates: there are
    none in one pass.

    Example:
        >>> import jax.numpy as jnp, adamx, adamx.flax
        >>> from flax import nnx
        >>> model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
        >>> tx = adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adamw(1e-3))
        >>> optimizer = adamx.flax.Optimizer(model, tx, wrt=nnx.Param)
        >>> @nnx.jit
        ... def train_step(model, optimizer, x):
        ...     optimizer.update(model, nnx.grad(lambda model: jnp.mean(model(x) ** 2))(model))
        >>> train_step(model, optimizer, jnp.ones((1, 2)))
        >>> int(optimizer.step[...])
        1
    """

    def update(self, model: Any, grads: Any, /, **kwargs: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Takes a step: changes the model's parameters and the optimizer's state in place.

        Args:
            model: the module.
            grads: the gradients that `nnx.grad` gave.
            **kwargs: extra arguments of the transformation.
        """
        params, gradients = nnx.state(model, self.wrt), nnx.state(grads, self.wrt)
        state: Any = self.opt_state
        if jax.tree.leaves(state) and not has_variables(jax.tree.structure(state)):
            raise TypeError("opt_state is a plain tree of arrays: put it into the optimizer by set_state(state)")
        moved, after = step(self.tx, bare(gradients), bare(state), bare(params), **bare(kwargs))
        nnx.update(model, jax.tree.unflatten(jax.tree.structure(params), jax.tree.leaves(moved)))
        _write(state, after)
        _write(self.step, bare(self.step) + 1)

    def set_state(self, state: Any) -> None:
        """Puts a state from elsewhere, restored or converted, in the place of the optimizer's own.

        Args:
            state: a tree of the types and shapes of `tx.init(params)`, as `adamx.interop.from_torch`, `from_optax` and
                `restore_as` return it. `step` does not change.

        Raises:
            ValueError: another tree, or arrays of another shape or dtype.

        Example:
            >>> import jax.numpy as jnp, adamx, adamx.flax
            >>> from flax import nnx
            >>> model, tx = nnx.Linear(2, 1, rngs=nnx.Rngs(0)), adamx.adam(1e-3)
            >>> optimizer = adamx.flax.Optimizer(model, tx, wrt=nnx.Param)
            >>> optimizer.set_state(tx.init(nnx.state(model, nnx.Param)))
        """
        found = differences(self.opt_state, state)
        if found:
            raise ValueError(f"the state is not that of the optimizer: {found[0][1]}; see adamx.interop.restore_as")
        _write(self.opt_state, bare(state))


def _write(variables: Any, arrays: Any) -> None:
    """Puts arrays into the variables of a tree."""
    found = [node for node in jax.tree.leaves(variables, is_leaf=is_variable) if is_variable(node)]
    for variable, x in zip(found, jax.tree.leaves(arrays), strict=True):
        if hasattr(variable, "set_value"):
            variable.set_value(x)
        else:
            variable.value = x


class TrainState(train_state.TrainState):
    """`flax.training.train_state.TrainState` of Linen whose `apply_gradients` is `adamx.step`.

    Fields and `create` are Flax's. It makes one pass over memory if the optimizer has one.

    Example:
        >>> import jax, jax.numpy as jnp, adamx, adamx.flax
        >>> tx = adamx.chain(adamx.clip_by_global_norm(1.0), adamx.adamw(1e-3))
        >>> state = adamx.flax.TrainState.create(apply_fn=None, params={"w": jnp.ones(2)}, tx=tx)
        >>> state = jax.jit(lambda state, g: state.apply_gradients(grads=g))(state, {"w": jnp.ones(2)})
        >>> int(state.step), float(state.params["w"][0]) < 1
        (1, True)
    """

    def apply_gradients(self, *, grads: Any, **kwargs: Any) -> "TrainState":
        """The state after a step.

        Args:
            grads: of the parameters' structure.
            **kwargs: further fields of the state to replace.
        """
        owned: str = getattr(train_state, "OVERWRITE_WITH_GRADIENT")  # noqa: B009 - Flax does not export it
        whole = owned in grads  # a collection that takes the gradient itself, fp8 scales say
        params: Any = self.params["params"] if whole else self.params
        moved, opt_state = step(self.tx, grads["params"] if whole else grads, self.opt_state, params)
        moved = {"params": moved, owned: grads[owned]} if whole else moved
        return self.replace(step=self.step + 1, params=moved, opt_state=opt_state, **kwargs)
