"""Groups of parameters by path: no decay on biases and norms, a tenth of the rate on embeddings, a frozen body.

    python examples/parameter_groups.py

The frozen body has no moments: `optax.partition` gives it to `set_to_zero`, and the mask of paths is its labels.
"""

import jax
import jax.numpy as jnp
import optax

import adamx

VOCABULARY, WIDTH, STEPS, RATE = 64, 16, 300, 1e-2


def start(key):
    keys = jax.random.split(key, 3)
    return {
        "embedding": jax.random.normal(keys[0], (VOCABULARY, WIDTH)) / 4,
        "body": {"kernel": jax.random.normal(keys[1], (WIDTH, WIDTH)) / 4, "norm": {"scale": jnp.ones(WIDTH)}},
        "head": {"kernel": jax.random.normal(keys[2], (WIDTH, VOCABULARY)) / 4, "bias": jnp.zeros(VOCABULARY)},
    }


def loss(params, tokens):
    x = params["embedding"][tokens[:-1]]
    x = x + jnp.tanh(x @ params["body"]["kernel"]) * params["body"]["norm"]["scale"]
    logits = x @ params["head"]["kernel"] + params["head"]["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[1:]).mean()


decayed = adamx.adamw(RATE, weight_decay=0.1, mask=adamx.not_matching("bias$", "norm/"))
grouped = optax.chain(decayed, adamx.scale_by_path({"^embedding": 0.1}))
frozen = optax.partition({True: optax.set_to_zero(), False: adamx.adam(RATE)}, adamx.match("^body/"))

tokens = jnp.arange(512) * 7 % VOCABULARY
for name, tx in {"grouped": grouped, "frozen body": frozen}.items():
    params = before = start(jax.random.key(0))
    state = tx.init(params)
    step = jax.jit(lambda p, s, tx=tx: adamx.step(tx, jax.grad(loss)(p, tokens), s, p))
    for _ in range(STEPS):
        params, state = step(params, state)
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), params, before)
    print(f"{name}: loss {loss(before, tokens):.2f} -> {loss(params, tokens):.4f},", end=" ")
    print(f"{adamx.state_bytes(state).total} bytes of state, largest change of the body {moved['body']['kernel']:.3f}")

try:
    adamx.match("embeddings")(params)
except ValueError as error:
    print(error)
