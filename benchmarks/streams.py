"""Streams of gradients for one leaf, `(steps, 32, 128)` in float32, each from a seed."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

SHAPE = (32, 128)
PERIODS = (2, 3, 7, 13, 89, 144, 233, 500)


def constant(steps: int, random: np.random.Generator) -> np.ndarray:
    """Every element its own N(0,1) number, the same in every step."""
    return np.broadcast_to(random.standard_normal(SHAPE), (steps, *SHAPE))


def normal(steps: int, random: np.random.Generator) -> np.ndarray:
    """N(0,1)."""
    return random.standard_normal((steps, *SHAPE))


def drop(steps: int, random: np.random.Generator) -> np.ndarray:
    """N(0,1), from step 2,000 on (or two fifths of a shorter stream) a hundredth of it."""
    scale = np.where(np.arange(steps) < min(2000, steps * 2 // 5), 1.0, 0.01)
    return random.standard_normal((steps, *SHAPE)) * scale[:, None, None]


def outliers(steps: int, random: np.random.Generator) -> np.ndarray:
    """N(0,1), one element of every 128 at 10,000 times that."""
    scale = np.where(np.arange(SHAPE[1]) == 21, 1e4, 1.0)
    return random.standard_normal((steps, *SHAPE)) * scale


def sparse(steps: int, random: np.random.Generator) -> np.ndarray:
    """N(0,1) for one element in a hundred, drawn anew in each step, 0 for the others."""
    return random.standard_normal((steps, *SHAPE)) * (random.random((steps, *SHAPE)) < 0.01)


def scales(steps: int, random: np.random.Generator) -> np.ndarray:
    """Student's t with 3 degrees of freedom, each element times its own log-normal scale."""
    return random.standard_t(3, (steps, *SHAPE)) * np.exp(random.standard_normal(SHAPE))


def stays(steps: int, random: np.random.Generator) -> np.ndarray:
    """Ones, from two fifths on 0.1, but for one element of every 32, which stays at 1."""
    late = (np.arange(steps) >= steps * 2 // 5)[:, None, None] & (np.arange(SHAPE[1]) % 32 != 5)
    return np.where(late, 0.1, 1.0) * np.ones((steps, *SHAPE))


def digits(steps: int, random: np.random.Generator) -> np.ndarray:
    """The gradients of the middle half of a first layer, 64 pixels to 128 units, that learns handwritten digits."""
    from sklearn.datasets import load_digits  # noqa: PLC0415

    images, labels = (jnp.asarray(a) for a in load_digits(return_X_y=True))
    params = {
        "in": jnp.asarray(random.standard_normal((64, 128)) / 8, jnp.float32),
        "out": jnp.asarray(random.standard_normal((128, 10)) / 12, jnp.float32),
    }
    tx = optax.adam(1e-3)

    def loss(params: dict[str, jax.Array], chosen: jax.Array) -> jax.Array:
        hidden = jax.nn.gelu(images[chosen].astype(jnp.float32) / 16 @ params["in"])
        return optax.softmax_cross_entropy_with_integer_labels(hidden @ params["out"], labels[chosen]).mean()

    def step(
        carry: tuple[optax.Params, optax.OptState], chosen: jax.Array
    ) -> tuple[tuple[optax.Params, ...], jax.Array]:
        params, state = carry
        gradients = jax.grad(loss)(params, chosen)
        updates, state = tx.update(gradients, state)
        return (optax.apply_updates(params, updates), state), gradients["in"][16:48]

    batches = jnp.asarray(random.integers(len(labels), size=(steps, 64)))
    return np.asarray(jax.jit(lambda c, b: jax.lax.scan(step, c, b)[1])((params, tx.init(params)), batches))


def periodic(period: int) -> Callable[[int, np.random.Generator], np.ndarray]:
    """N(0,1), repeated after so many steps."""

    def stream(steps: int, random: np.random.Generator) -> np.ndarray:
        pattern = random.standard_normal((period, *SHAPE))
        return np.tile(pattern, (-(-steps // period), 1, 1))[:steps]

    return stream


STREAMS = {
    "constant": constant,
    "N(0,1)": normal,
    "drop 100x": drop,
    "outliers": outliers,
    "1 % sparse": sparse,
    "digits": digits,
    "scales": scales,
    "one stays": stays,
}
