"""How well a stored moment follows float64 Adam: every codec on every stream of gradients.

    python benchmarks/codecs.py [--quick] [--from PATH] [--json PATH] [--figure PATH]

Of the direction, against that of Adam in float64 at every tenth step: the slope of the regression on it ("factor", the
effective rate), the median and the 99th percentile of the relative error where the exact direction is above a tenth of
its root mean square, and over all steps the largest |u| over the exact largest. Bars: bfloat16 factor within 1 % and
median within 1.5 %; Int8 and float8 within 8 % and 7 %, Int4 within 10 %, and of these no |u| above twice the exact
largest. Exits with 1 if one is missed. `--from` prints and draws the numbers of an earlier `--json`, measures nothing.
"""

import argparse
import contextlib
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import figures
import jax
import jax.numpy as jnp
import numpy as np
import rivals
from harness import headline, read_json, write_json
from streams import PERIODS, STREAMS, periodic
from tqdm import tqdm

import adamx

STEPS, EVERY = 5000, 10
Float, Int8, Int4 = adamx.storage.Float, adamx.storage.Int8, adamx.storage.Int4
dithered = functools.partial(Float, stochastic=True)
CODECS = {
    "float32": Float(),
    "bfloat16": dithered("bfloat16"),
    "bfloat16, independent": rivals.Independent(dithered("bfloat16")),
    "bfloat16, one stride": rivals.OneStride(dithered("bfloat16")),
    "bfloat16, nearest": rivals.Nearest(dithered("bfloat16"), dithered=False),
    "float16": dithered("float16"),
    "float8_e4m3fn": dithered("float8_e4m3fn"),
    "float8_e5m2": dithered("float8_e5m2"),
    "Int8()": Int8(min_size=4096),
    "Int8(), independent": rivals.Independent(Int8(min_size=4096)),
    "linear, 64": rivals.linear(),
    "linear, 64, nearest": rivals.linear(rounding="nearest"),
    "m², v³, 64": rivals.power(2, 3),
    "m², v³, 128, top apart": rivals.power(2, 3, block_size=128, apart=True),
    "m², v⁴, 128, top apart": rivals.power(2, 4, block_size=128, apart=True),
    "m³, v⁶ from 20, 128, top apart": rivals.shifted((3, 0), (6, 20), block_size=128, apart=True),
    "logarithmic, 64": rivals.logarithmic(16),
    "dynamic tree, 128, nearest": rivals.dynamic_tree(block_size=128, rounding="nearest"),
    "dynamic tree, 128": rivals.dynamic_tree(block_size=128),
    "softsign and root, 32, nearest": rivals.softsign(block_size=32, rounding="nearest"),
    "softsign and root, 32": rivals.softsign(block_size=32),
    "Int4() m, Int8() v": (Int4(min_size=4096), Int8(min_size=4096)),
    "Int4()": Int4(min_size=4096),
    "Int4(64)": Int4(64, 4096),
    "Int4(), independent": rivals.Independent(Int4(min_size=4096)),
    "Int4(), nearest": rivals.Halfway(Int4(min_size=4096)),
    "Int4(), nearest, reset every 100": rivals.Reset(Int4(min_size=4096)),
    "4 bits as torchao, nearest": rivals.four_bits(rounding="nearest"),
    "4 bits as torchao": rivals.four_bits(),
}
WALKERS = (
    *("bfloat16", "bfloat16, independent", "bfloat16, one stride", "bfloat16, nearest"),
    *("Int8()", "Int8(), independent"),
)
BLOCKS = {
    "Int8": Int8,
    "m², v³": functools.partial(rivals.power, 2, 3),
    "linear": rivals.linear,
    "linear, nearest": functools.partial(rivals.linear, rounding="nearest"),
}
BLOCK_SIZES = (32, 64, 128, 256, 512, 2048)
BLOCK_STREAMS = ("constant", "N(0,1)", "outliers", "digits", "scales")
BARS = {
    "bfloat16": (0.01, 0.015, np.inf),
    **dict.fromkeys(("float8_e4m3fn", "float8_e5m2", "Int8()"), (0.08, 0.07, 2.0)),
    "Int4() m, Int8() v": (0.1, np.inf, 2.0),
    "Int4()": (0.1, np.inf, 2.0),
}


class Score(NamedTuple):
    """What became of one stream under one codec."""

    factor: float
    median: float
    percentile99: float
    largest: float

    def holds(self, bars: tuple[float, float, float]) -> bool:
        return abs(self.factor - 1) <= bars[0] and self.median <= bars[1] and self.largest <= bars[2]

    def __str__(self) -> str:
        return f"{self.factor:.3f} / {self.median:.4f} / {self.percentile99:.3f} / {self.largest:.2f}"


@functools.partial(jax.jit, static_argnums=0)
def follow(codec: Any, gradients: jax.Array) -> tuple[jax.Array, ...]:
    """The direction at every tenth step, the exact one, and the largest of both over all steps."""
    mu, nu = codec if type(codec) is tuple else (codec, codec)
    tx = adamx.scale_by_adam(mu_dtype=mu, nu_dtype=nu)
    fresh, every = tx.init(gradients[0]), codec.every if type(codec) is rivals.Reset else 0
    strides = codec.strides if type(codec) is rivals.OneStride else contextlib.nullcontext

    def step(carry: Any, g: jax.Array) -> tuple[Any, None]:
        state, m, v, t, *_, largest, exact_largest = carry
        with strides():
            u, state = tx.update(g, state)
        if every:
            state = jax.tree.map(lambda x, y: jnp.where(state.count == every, x, y), fresh, state)
        wide, t = g.astype(jnp.float64), t + 1
        m, v = 0.9 * m + 0.1 * wide, 0.999 * v + 0.001 * wide**2
        exact = (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)
        largest = jnp.maximum(largest, jnp.max(jnp.abs(u)))
        return (state, m, v, t, u, exact, largest, jnp.maximum(exact_largest, jnp.max(jnp.abs(exact)))), None

    def ten(carry: Any, chunk: jax.Array) -> tuple[Any, Any]:
        carry = jax.lax.scan(step, carry, chunk)[0]
        return carry, (carry[4], carry[5].astype(jnp.float32))

    g = gradients[0]
    zero = jnp.zeros(g.shape, jnp.float64)
    start = (tx.init(g), zero, zero, jnp.float64(0), jnp.zeros_like(g), zero, jnp.float32(0), jnp.float64(0))
    carry, (u, exact) = jax.lax.scan(ten, start, gradients.reshape(-1, EVERY, *g.shape))
    return u, exact, carry[-2] / carry[-1]


def score(codec: Any, gradients: jax.Array) -> Score:
    u, exact, largest = (np.asarray(x, np.float64) for x in follow(codec, gradients))
    typical = np.sqrt(np.mean(exact**2, axis=(1, 2), keepdims=True))
    counts = np.abs(exact) > 0.1 * typical
    errors = np.abs(u[counts] / exact[counts] - 1)
    return Score((u * exact).sum() / (exact**2).sum(), *np.quantile(errors, [0.5, 0.99]), float(largest))


def in_rows(make: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """The same stream in two rows of 2,048, for the largest blocks."""
    return lambda *args: make(*args).reshape(-1, 2, 2048)


def measured(codecs: dict[str, Any], streams: dict[str, Any], steps: int) -> dict[str, dict[str, Score]]:
    """A score for every codec and stream."""
    found: dict[str, dict[str, Score]] = {name: {} for name in codecs}
    for stream, make in tqdm(streams.items(), unit="stream"):
        gradients = jnp.asarray(make(steps, np.random.default_rng(0)), jnp.float32)
        for name, codec in codecs.items():
            found[name][stream] = score(codec, gradients)
    return found


def markdown(found: dict[str, dict[str, Score]]) -> str:
    """A table with a row for each codec and a column for each stream; what misses its bar is marked."""
    streams = list(next(iter(found.values())))
    lines = [["codec", *streams], ["---"] * (len(streams) + 1)]
    lines += [[name, *(f"{s}{' MISSED' * (not held(name, s))}" for s in row.values())] for name, row in found.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


SHOWN = {
    "bfloat16": "bfloat16",
    "bfloat16, nearest": "bfloat16, nearest",
    "Int8()": "Int8",
    "dynamic tree, 128, nearest": "dynamic tree, nearest",
    "Int4()": "Int4",
}


def draw(found: dict[str, dict[str, Score]], path: Path) -> None:
    """The median error of five codecs as a map, the darker the larger, with the factor in each field."""
    from matplotlib.colors import LogNorm  # noqa: PLC0415

    streams = list(next(iter(found.values())))
    shown = {words: found[name] for name, words in SHOWN.items() if name in found}
    errors = np.array([[100 * s.median for s in row.values()] for row in shown.values()])
    figure, (axis,) = figures.panels(height=0.5 * len(shown) + 1.1)
    image = axis.imshow(errors, norm=LogNorm(0.1, 100, clip=True), cmap="Blues", aspect="auto")
    axis.grid(visible=False)
    axis.set_xticks(range(len(streams)), streams, fontsize="small")
    axis.set_yticks(range(len(shown)), shown)
    axis.tick_params(length=0)
    for y, row in enumerate(shown.values()):
        for x, s in enumerate(row.values()):
            text, dark = f"{100 * s.median:.2g} %\n\N{MULTIPLICATION SIGN}{s.factor:.2f}", s.median > 0.1
            axis.text(x, y, text, ha="center", va="center", fontsize="small", color="white" if dark else "black")
    bar = figure.colorbar(image, label="median error (%)", orientation="horizontal", aspect=60, shrink=0.6)
    bar.ax.xaxis.set_major_formatter("{x:g}")
    figures.save(figure, path)


def held(name: str, found: Score) -> bool:
    return name not in BARS or found.holds(BARS[name])


def every_table(quick: bool) -> list[dict[str, dict[str, Score]]]:
    """Measured: all codecs, dithers on streams that repeat, and lengths of blocks; quick a part of the first."""
    if quick:
        codecs = {name: CODECS[name] for name in ("bfloat16", "bfloat16, nearest", "Int8()")}
        return [measured(codecs, {name: STREAMS[name] for name in ("constant", "N(0,1)", "outliers", "digits")}, 600)]
    walkers = {name: CODECS[name] for name in WALKERS}
    blocks = {f"{name}, {size}": make(block_size=size) for name, make in BLOCKS.items() for size in BLOCK_SIZES}
    return [
        measured(CODECS, STREAMS, STEPS),
        measured(walkers, {f"period {p}": periodic(p) for p in PERIODS}, STEPS),
        measured(blocks, {name: in_rows(STREAMS[name]) for name in BLOCK_STREAMS}, STEPS),
    ]


def scores_of(earlier: dict[str, Any]) -> list[dict[str, dict[str, Score]]]:
    """The tables of an earlier run."""
    return [
        {name: {stream: Score(**s) for stream, s in row.items()} for name, row in found.items()}
        for found in earlier["scores"]
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="600 steps of four streams and three codecs")
    parser.add_argument("--from", type=Path, dest="earlier", help="an earlier --json to print and draw")
    parser.add_argument("--json", type=Path, help="where to keep the numbers")
    parser.add_argument("--figure", type=Path, help="where to draw five rows of the first table")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)

    earlier = read_json(arguments.earlier) if arguments.earlier else {}
    tables = scores_of(earlier) if earlier else every_table(arguments.quick)
    print(headline(earlier.get("machine")), "", "factor / median / 99 % / largest", sep="\n")
    for found in tables:
        print("", markdown(found), sep="\n")
    scores = [{name: {k: s._asdict() for k, s in row.items()} for name, row in found.items()} for found in tables]
    if not earlier:
        write_json(arguments.json, "codecs", {"scores": scores})
    if arguments.figure:
        draw(tables[0], arguments.figure)
    missed = [
        f"{name} on {k}" for found in tables for name, row in found.items() for k, s in row.items() if not held(name, s)
    ]
    print("", f"missed: {', '.join(missed)}" if missed else "all bars hold", sep="\n")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
