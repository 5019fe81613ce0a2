"""What the laws are tested on: trees of random streams of gradients, and a compiled run of an optimizer over them."""

import functools

import jax
import numpy as np
import optax
from hypothesis import settings
from hypothesis import strategies as st

import adamx

few = settings(max_examples=8, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 2**16)
rates = st.floats(1e-6, 1e3)
some_memory = st.sampled_from([0.5, 0.9, 0.99, 0.999]) | st.floats(0.1, 0.999)
betas = st.just(0.0) | some_memory

STEPS = 12
EPS = 2.0**-53
"""Half the distance of two float64 numbers at 1: the relative error of an operation."""

SUM = 8 * STEPS * EPS
"""The relative error of an average after all steps: each rounds five times, and NumPy's powers of β do, too."""

SHAPES = {
    "array": (24,),
    "nested": [({"w": (3, 4), "b": (4,)}, {"scale": ()}), (0,), (2, 2, 2)],
}
"""One compilation each: random shapes would take the time of the tests to compile."""

shapes = st.sampled_from(sorted(SHAPES))


def is_shape(node):
    return isinstance(node, tuple) and all(isinstance(n, int) for n in node)


def stream(seed, shape="array", steps=STEPS, dtype=np.float64):
    """Gradients whose first axis is the step, element by element of another magnitude, a tenth of them zero."""
    random = np.random.default_rng(seed)

    def leaf(shape):
        g = random.standard_normal((steps, *shape)) * 10.0 ** random.integers(-3, 3, shape)
        return (g * (random.random(g.shape) > 0.1)).astype(dtype)

    return jax.tree.map(leaf, SHAPES[shape], is_leaf=is_shape)


def run(make, gradients, *hyperparameters):
    """All updates and states of `make(*hyperparameters)`, as NumPy arrays whose first axis is the step."""
    return jax.device_get(scanned(make, gradients, *hyperparameters))


@functools.partial(jax.jit, static_argnums=0)
def scanned(make, gradients, *hyperparameters):
    """The same on the device; other hyperparameters are no other program."""
    tx = make(*hyperparameters)
    params = jax.tree.map(lambda g: jax.numpy.zeros_like(g[0]), gradients)

    def step(state, g):
        updates, state = tx.update(g, state, params)
        return state, (updates, state)

    return jax.lax.scan(step, tx.init(params), gradients)[1]


def adam(alpha, b1, b2):
    """Without ε, which only stands between the laws and their exactness."""
    return adamx.adam(alpha, b1, b2, eps=0.0)


def direction(b1, b2):
    return adamx.scale_by_adam(b1, b2, eps=0.0)


def uncorrected(b1, b2):
    return optax.chain(adamx.scale_by_moments(b1, b2), adamx.uncorrected(eps=0.0))


def weights(decay, t):
    """The weights of g_1, ..., g_t in an average from zero, as they are and with the sum 1."""
    raw = (1 - decay) * np.power(decay, np.arange(t - 1, -1, -1.0))
    return raw, raw / raw.sum()


def rounding(t, b1, b2):
    """The relative error of a direction after t steps, where its sum does not cancel.

    That of the sums; and 1-β^t keeps what β^t is rounded by, one unit of 1 for each of its factors.
    """
    return SUM * max(1, t / STEPS) + 2 * (t + 2) * EPS * (1 / (1 - b1**t) + 1 / (1 - b2**t))


def cauchy_schwarz(b1, b2, t):
    """√(Σ a_i²/b_i); a weight of 0 adds nothing unless it is v̂'s alone."""
    a, b = weights(b1, t)[1], weights(b2, t)[1]
    with np.errstate(divide="ignore"):
        return np.sqrt(np.sum(np.divide(a**2, b, out=np.zeros(t), where=a > 0)))
