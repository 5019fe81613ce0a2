"""Does β2 need to change with the batch size? The digits, batches of 8 to 512, the same number of images for all.

    python benchmarks/beta2_half_life.py [--quick] [--json PATH] [--figure PATH]

Marek et al. (2025), arXiv 2507.07101, keep the half-life of v in tokens, not β2. Here an image is a token. Adam with
β2 = 0.999 at every batch size, with β2 = 0.95 at every batch size, and with the half-life that β2 = 0.95 has at 512
images. The learning rate is warmed up and decayed; its peak is the best of a grid of half powers of ten, for each
batch size and rule apart, on the seeds that are reported. The loss is that of the held-out images after the last step.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from figures import COLOURS, MARKERS
from harness import compile_lightly, headline, table, write_json
from tasks import Task, digits
from tqdm import tqdm

import adamx

SIZES = (8, 32, 128, 512)
IMAGES, QUICK_IMAGES = 2**15, 2**11
DRAWN = 64  # how many images `Task.batch` draws
RATES = 10 ** np.arange(-2.5, -0.9, 0.5)
SEEDS = 3
HALF_LIFE = 512 * np.log(0.5) / np.log(0.95)
FIXED = {"β2 = 0.999": 0.999, "β2 = 0.95": 0.95}
RULES = [*FIXED, f"β2 of a half-life of {HALF_LIFE:,.0f} images"]


def b2_of(rule: str, size: int) -> float:
    return FIXED[rule] if rule in FIXED else adamx.beta2_for(size, HALF_LIFE)


def batch(task: Task, size: int, key: jax.Array) -> Any:
    """A batch of another size than the task draws."""
    drawn = jax.vmap(task.batch)(jax.random.split(key, -(-size // DRAWN)))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:size], drawn)


def losses(task: Task, size: int, images: int) -> np.ndarray:
    """Held-out losses after the last step, `(rules, rates, seeds)`."""
    steps = images // size
    share = optax.warmup_cosine_decay_schedule(0.0, 1.0, max(1, steps // 10), steps)

    def train(b2: jax.Array, rate: jax.Array, seed: jax.Array) -> jax.Array:
        tx = adamx.adam(lambda count: rate * share(count), b2=b2)

        def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
            params, state = carry
            updates, state = tx.update(jax.grad(task.loss)(params, batch(task, size, key)), state, params)
            return (optax.apply_updates(params, updates), state), None

        start, batches = jax.random.split(jax.random.key(seed))
        params = task.init(start)
        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), jax.random.split(batches, steps))
        return task.loss(params, task.test)

    for axis in (2, 1, 0):
        train = jax.vmap(train, in_axes=[0 if i == axis else None for i in range(3)])
    b2s = jnp.asarray([b2_of(rule, size) for rule in RULES])
    return np.asarray(jax.jit(train)(b2s, jnp.asarray(RATES, jnp.float32), jnp.arange(SEEDS)))


def best(found: np.ndarray) -> tuple[float, np.ndarray]:
    """The learning rate with the lowest mean, and its losses."""
    row = np.where(np.isfinite(found), found, np.inf).mean(axis=1).argmin()
    return float(RATES[row]), found[row]


def draw(found: dict[str, dict[int, np.ndarray]], path: Path) -> None:
    """The loss after the last step by the batch size."""
    import matplotlib.pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for (rule, by_size), colour, marker in zip(found.items(), COLOURS, MARKERS, strict=False):
        ends = [best(by_size[size])[1] for size in by_size]
        means, spreads = [e.mean() for e in ends], [e.std(ddof=1) for e in ends]
        axes.errorbar(list(by_size), means, spreads, label=rule, color=colour, marker=marker, markersize=5, capsize=2)
    axes.set_xscale("log", base=2)
    axes.set_xticks(SIZES, labels=[str(size) for size in SIZES])
    axes.set(xlabel="batch size (images)", ylabel="held-out loss after the last step (nats)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a sixteenth of the images")
    parser.add_argument("--json", type=Path, help="where to keep the numbers")
    parser.add_argument("--figure", type=Path, help="where to draw the losses")
    arguments = parser.parse_args()
    images = QUICK_IMAGES if arguments.quick else IMAGES
    if arguments.quick:
        compile_lightly()

    task = digits()
    found: dict[str, dict[int, np.ndarray]] = {rule: {} for rule in RULES}
    for size in tqdm(SIZES, unit="batch size"):
        for rule, of_rule in zip(RULES, losses(task, size, images), strict=True):
            found[rule][size] = of_rule

    print(headline(), "", f"{images} images, {SEEDS} seeds, held-out loss after the last step", sep="\n")
    for rule, by_size in found.items():
        rows = []
        for size, values in by_size.items():
            rate, end = best(values)
            rows.append(
                [str(size), f"{b2_of(rule, size):.5f}", f"{rate:.1e}", f"{end.mean():.4f} ± {end.std(ddof=1):.4f}"]
            )
        print("", table([rule, "β2", "best learning rate", "loss"], rows), sep="\n")
    kept = {rule: {size: values.tolist() for size, values in by_size.items()} for rule, by_size in found.items()}
    write_json(arguments.json, "beta2_half_life", {"images": images, "rates": RATES.tolist(), "losses": kept})
    if arguments.figure:
        draw(found, arguments.figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
