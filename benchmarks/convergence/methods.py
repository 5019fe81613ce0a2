"""The optimizers that the paper compares, each from a learning rate.

Adam is adamx's, the others are optax's. AdaGrad sums from zero and AdaDelta averages over 20 steps, as their papers
have it; everything else is the library's default.
"""

import jax.numpy as jnp
import optax
from training import Build, Rate

import adamx

ADAM, NESTEROV, ADAGRAD, RMSPROP, ADADELTA = "Adam", "SGD, Nesterov", "AdaGrad", "RMSProp", "AdaDelta"

METHODS: dict[str, Build] = {
    ADAM: adamx.adam,
    NESTEROV: lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
    ADAGRAD: lambda rate: optax.adagrad(rate, initial_accumulator_value=0.0),
    RMSPROP: optax.rmsprop,
    ADADELTA: lambda rate: optax.adadelta(rate, rho=0.95),
}


def over_root(build: Build) -> Build:
    """The same method with the learning rate `α/√t`."""

    def scheduled(alpha: Rate) -> optax.GradientTransformation:
        return build(lambda count: alpha / jnp.sqrt(count + 1.0))

    return scheduled


def decayed() -> dict[str, Build]:
    """All with `α/√t`, as in the paper's logistic regressions, but AdaGrad, whose sum decays like that by itself."""
    return {name: build if name == ADAGRAD else over_root(build) for name, build in METHODS.items()}
