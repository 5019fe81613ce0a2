"""Adam as a hand-made chain of its three stages, with transformations of optax in the gaps.

    python examples/chain_by_hand.py

By themselves the stages are adamx.adam. Anything that optax offers fits before the first stage, where gradients flow,
and after the second, where directions do: clipping goes in front, and weight decay behind makes it AdamW. Between the
first and the second stage flow Moments, which a transformation of gradients would spoil, so an error says where to go.
"""

import jax
import jax.numpy as jnp
import optax

import adamx


def fit(optimizer: optax.GradientTransformation, steps: int = 200) -> dict[str, jax.Array]:
    """Linear regression by gradient descent."""
    inputs = jax.random.normal(jax.random.key(0), (256, 8))
    targets = inputs @ jnp.arange(8.0) + 3

    @jax.jit
    def step(params, state):
        gradients = jax.grad(lambda p: jnp.mean((inputs @ p["slope"] + p["offset"] - targets) ** 2))(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    params = {"slope": jnp.zeros(8), "offset": jnp.zeros(())}
    state = optimizer.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params


def compare(title: str, by_hand: optax.GradientTransformation, ready_made: optax.GradientTransformation) -> None:
    a, b = fit(by_hand), fit(ready_made)
    equal = jax.tree.all(jax.tree.map(jnp.array_equal, a, b))
    print(f"{title}: offset {a['offset']:.6f} and {b['offset']:.6f}, all parameters equal: {bool(equal)}")
    assert equal


moments, correction, rate = adamx.scale_by_moments(), adamx.bias_correction(), adamx.scale_by_lr(0.1)
clip, decay = optax.clip_by_global_norm(1.0), optax.add_decayed_weights(0.01)

compare("three stages = adam", optax.chain(moments, correction, rate), adamx.adam(0.1))
compare("clipped in front", optax.chain(clip, moments, correction, rate), optax.chain(clip, adamx.adam(0.1)))
compare("decay in the gap = adamw", optax.chain(moments, correction, decay, rate), adamx.adamw(0.1, weight_decay=0.01))

try:
    fit(optax.chain(moments, clip, correction, rate))
except TypeError as error:
    print(f"clipped in the wrong gap: {error}")
