"""An optimizer for each group of parameters: Muon for matrices, and adapters beside a frozen model.

    python examples/muon_and_lora.py

`adamx.route` chooses by the path of a parameter. First Muon (of optax) takes the matrices of a small network and AdamW
the rest. Then the network is frozen, and AdamW trains LoRA adapters beside its matrices (Hu et al. 2021, arXiv
2106.09685): a frozen parameter has no state.
"""

import jax
import jax.numpy as jnp
import optax

import adamx

WIDTH, RANK = 32, 2


def network(params, x):
    """Two layers; an adapter, where there is one, is added to its matrix."""
    for name in ("first", "second"):
        layer = params[name]
        kernel = layer["kernel"]
        if "lora" in params:
            kernel = kernel + params["lora"][name]["a"] @ params["lora"][name]["b"]
        x = jnp.tanh(x @ kernel + layer["bias"])
    return x.mean(-1)


def loss_of(params, x, y):
    return jnp.mean((network(params, x) - y) ** 2)


def trained(tx, params, x, y, steps=200):
    """Parameters, state and loss after some steps."""

    def step(carry, _):
        params, state = carry
        loss, gradients = jax.value_and_grad(loss_of)(params, x, y)
        return adamx.step(tx, gradients, state, params), loss

    carry, losses = jax.jit(lambda p, s: jax.lax.scan(step, (p, s), length=steps))(params, tx.init(params))
    return *carry, losses


def layer(key):
    return {"kernel": jax.random.normal(key, (WIDTH, WIDTH)) / WIDTH**0.5, "bias": jnp.zeros(WIDTH)}


keys = jax.random.split(jax.random.key(0), 7)
params = {"first": layer(keys[0]), "second": layer(keys[1])}
x = jax.random.normal(keys[2], (256, WIDTH))
y = jnp.tanh(x[:, 0] * x[:, 1]) / 2

tx = adamx.route({"kernel$": optax.contrib.muon(0.01)}, default=adamx.adamw(1e-2))
print(adamx.explain(tx, params), end="\n\n")
params, state, losses = trained(tx, params, x, y)
print(f"muon and adamw: loss {losses[0]:.4f} to {losses[-1]:.4f}")
assert losses[-1] < losses[0] / 3

adapters = {
    name: {"a": jax.random.normal(key, (WIDTH, RANK)) / WIDTH**0.5, "b": jnp.zeros((RANK, WIDTH))}
    for name, key in zip(("first", "second"), keys[3:5], strict=True)
}
with_adapters = {**params, "lora": adapters}
tx = adamx.route({"^lora/": adamx.adamw(1e-2)}, default=None)
tuned, state, losses = trained(tx, with_adapters, x, -y)
print(f"adapters alone: loss {losses[0]:.4f} to {losses[-1]:.4f}, {adamx.state_bytes(state).total:,} bytes of state")
assert losses[-1] < losses[0] / 2
assert (tuned["first"]["kernel"] == params["first"]["kernel"]).all()
