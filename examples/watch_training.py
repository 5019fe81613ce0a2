"""A probe in the chain: what Adam does to each layer, in TensorBoard and in a picture.

    python examples/watch_training.py [--out FOLDER]

Halfway the rate falls to a tenth, and the update ratios with it. `tensorboard --logdir FOLDER` shows the curves.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits
from tensorboardX import SummaryWriter

import adamx

STEPS, EVERY = 1000, 20
images, labels = (jnp.asarray(a) for a in load_digits(return_X_y=True))
rate = optax.piecewise_constant_schedule(1e-2, {STEPS // 2: 0.1})
tx = adamx.skip_nonfinite(
    optax.chain(
        adamx.scale_by_moments(),
        adamx.diagnostics.probe(rate, every=EVERY),
        adamx.bias_correction(),
        adamx.scale_by_lr(rate),
    )
)


def init(key):
    sizes = (64, 128, 128, 10)
    keys = zip(jax.random.split(key, 3), sizes[:-1], sizes[1:], strict=True)
    return {
        f"layer_{i}": {"w": jax.random.normal(k, (n, m)) / n**0.5, "b": jnp.zeros(m)}
        for i, (k, n, m) in enumerate(keys)
    }


def loss(params, chosen):
    x = images[chosen].astype(jnp.float32) / 16
    for i in range(3):
        x = x @ params[f"layer_{i}"]["w"] + params[f"layer_{i}"]["b"]
        x = jax.nn.gelu(x) if i < 2 else x
    return optax.softmax_cross_entropy_with_integer_labels(x, labels[chosen]).mean()


@jax.jit
def step(params, state, key):
    value, gradients = jax.value_and_grad(loss)(params, jax.random.randint(key, (64,), 0, len(labels)))
    return *adamx.step(tx, gradients, state, params), value


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path("watch"))
out = parser.parse_args().out
params = init(jax.random.key(0))
state, history = tx.init(params), []
with SummaryWriter(str(out)) as writer:
    for t in range(STEPS):
        params, state, value = step(params, state, jax.random.key(t))
        if t % EVERY == 0:
            history.append(adamx.diagnostics.diagnose(state))
            writer.add_scalar("loss", float(value), t)
            for path, measurement in history[-1].items():
                for field, number in measurement._asdict().items():
                    writer.add_scalar(f"{field}/{path}", number, t)
adamx.diagnostics.plot(history).savefig(out / "training.png", dpi=200)
print(f"loss {float(value):.1e} after {STEPS} steps; {len(history)} measurements in {out}, a picture in training.png")
