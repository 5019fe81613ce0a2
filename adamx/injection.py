"""Hyperparameters in the state, where they can be changed while training."""

import functools
import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from adamx.core.step import Pass, Update, Weights, about, take_step
from adamx.trees import Tree

Factory = Callable[..., optax.GradientTransformation]


def inject_hyperparams(
    inner_factory: Factory, static_args: str | Iterable[str] = (), hyperparam_dtype: DTypeLike | None = None
) -> Callable[..., optax.GradientTransformationExtraArgs]:
    """`optax.inject_hyperparams` that keeps the one pass of `adamx.step`, with float32 hyperparameters.

    The numeric arguments of the optimizer are arrays in `state.hyperparams`. Assign another value there, and
    the next step uses it, without another compilation; a schedule is evaluated in every step. Three things differ from
    optax's:

    * hyperparameters are float32, float64 under x64, whatever the parameters are: in bfloat16 β2 = 0.999 is 1;
    * a function that is no schedule, such as `mask=adamx.not_matching("bias$")`, is passed on as it is;
    * `adamx.step` makes the one pass of the optimizer, with the numbers as operands.

    Args:
        inner_factory: makes an optimizer: `adamx.adamw`, or a function of your own that returns a chain.
        static_args: names of further arguments that are not to be injected. Strings, dtypes, booleans, None, functions
            that do not give a number from a step count, and arguments whose name ends in "mask" or "_fn" never are.
        hyperparam_dtype: another dtype for the hyperparameters.

    Returns:
        A function with the arguments of `inner_factory`, which takes a schedule in the place of any number, and returns
        a transformation with the state of optax's: `state.hyperparams`, `state.inner_state` and two counters.

    Raises:
        ValueError: a name in `static_args` that is no argument of `inner_factory`.
        ValueError, TypeError: as `inner_factory` does, when the optimizer is made.

    Example:
        >>> import jax, jax.numpy as jnp, adamx
        >>> tx = adamx.inject_hyperparams(adamx.adamw)(1e-3, mask=adamx.not_matching("bias$"))
        >>> params = {"w": jnp.ones(2, jnp.bfloat16), "bias": jnp.ones(1, jnp.bfloat16)}
        >>> state = tx.init(params)
        >>> state.hyperparams["b2"]
        Array(0.999, dtype=float32)
        >>> state.hyperparams["learning_rate"] = jnp.float32(0.5)
        >>> params, state = adamx.step(tx, jax.tree.map(jnp.ones_like, params), state, params)
        >>> params["w"]
        Array([0.5, 0.5], dtype=bfloat16)
    """
    named = {static_args} if isinstance(static_args, str) else set(static_args)
    signature = inspect.signature(inner_factory)

    @functools.wraps(inner_factory)
    def make(*args: Any, **kwargs: Any) -> optax.GradientTransformationExtraArgs:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            inner_factory(*args, **kwargs)  # says it better: how an argument is called here
            raise
        bound.apply_defaults()
        static = named | {name for name, value in bound.arguments.items() if _is_static(name, value)}
        dtype = jnp.result_type(float) if hyperparam_dtype is None else hyperparam_dtype

        def injected(of: Factory) -> optax.GradientTransformationExtraArgs:
            @functools.wraps(inner_factory)
            def factory(**arguments: Any) -> optax.GradientTransformation:
                ordered = OrderedDict((name, arguments[name]) for name in bound.arguments)
                now = inspect.BoundArguments(signature, ordered)
                return of(*now.args, **now.kwargs)

            return optax.inject_hyperparams(factory, static, dtype)(*args, **kwargs)  # pyright: ignore[reportArgumentType, reportReturnType]

        def step(gradients: Tree, state: Any, weights: Weights, told: Pass) -> tuple[Weights, Any]:
            def stepping(*now: Any, **named_now: Any) -> optax.GradientTransformationExtraArgs:
                """The optimizer with the numbers of this step; its update takes the step, and gives the weights."""
                tx = inner_factory(*now, **named_now)

                def taken(updates: Any, state: Any, params: Any = None, **_: Any) -> Any:
                    return take_step(tx, updates, state, weights, told)

                return optax.GradientTransformationExtraArgs(tx.init, taken)

            return injected(stepping).update(gradients, state, None, **told.extra)  # pyright: ignore[reportReturnType]

        composed = injected(inner_factory)
        bound.arguments.update({name: _first(value, name in static) for name, value in bound.arguments.items()})
        first = inner_factory(*bound.args, **bound.kwargs)
        return composed._replace(update=Update(composed.update, step, why=about(first).why))

    return make


def _is_static(name: str, value: Any) -> bool:
    """Whether a function is no schedule: it does not give a real number from a step count."""
    if not callable(value) or isinstance(value, optax.schedules.StatefulSchedule):
        return False
    if name.endswith(("mask", "_fn")):
        return True
    try:
        found = jax.eval_shape(value, jax.ShapeDtypeStruct((), jnp.int32))
    except Exception:
        return True  # the optimizer says what is wrong with it
    dtype = getattr(found, "dtype", bool)
    return not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer))


def _first(value: Any, static: bool) -> Any:
    """An argument before the first step."""
    if static or not callable(value):
        return value
    stateful = isinstance(value, optax.schedules.StatefulSchedule)
    return value(value.init() if stateful else jnp.zeros([], jnp.int32))
