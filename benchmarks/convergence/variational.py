"""The paper's variational auto-encoder, small: 64 softplus units on either side of 8 Gaussian latents."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from problems import apply, dense, digits
from training import Problem

HIDDEN, LATENT = 64, 8


def autoencoder() -> Problem:
    """Minus the evidence lower bound of the digits, in nats an image."""
    images = jnp.asarray(digits()[0])

    def init(key: jax.Array) -> Any:
        sizes = ((64, HIDDEN), (HIDDEN, 2 * LATENT), (LATENT, HIDDEN), (HIDDEN, 64))
        return [dense(k, *size) for k, size in zip(jax.random.split(key, 4), sizes, strict=True)]

    def loss(params: Any, x: jax.Array, key: jax.Array) -> jax.Array:
        mean, log_variance = jnp.split(apply(params[1], jax.nn.softplus(apply(params[0], x))), 2, axis=1)
        z = mean + jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape)
        logits = apply(params[3], jax.nn.softplus(apply(params[2], z)))
        divergence = (mean**2 + jnp.exp(log_variance) - log_variance - 1).sum(axis=1) / 2
        return (optax.sigmoid_binary_cross_entropy(logits, x).sum(axis=1) + divergence).mean()

    return Problem(
        init, len(images), lambda chosen: images[chosen], loss, lambda params: loss(params, images, jax.random.key(0))
    )
