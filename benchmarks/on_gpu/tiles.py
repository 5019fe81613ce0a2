"""Time of the Pallas kernel with int8 moments by how it divides a leaf: elements of a tile, warps, stages."""

import functools
import os
from typing import Any

from harness import measure, spread, table
from on_gpu.programs import Arrays, all_compiled, lowers_for_gpu, those_that_run
from on_gpu.record import Record
from on_gpu.speed import HYPER, INT8, QUICK, QUICK_SAMPLE_S, SAMPLE_S, SIZES, STEPS
from workloads import Optimizer, Tree, bytes_moved, small_leaves

import adamx

VARIABLE = "ADAMX_GPU_TILES"
"""Read by adamx when a program is traced: "elements of a tile,elements of a warp,stages"."""
USUAL = "as it is"
WARPS = (64, 128, 256, 512, 1024)
VARIANTS = [
    *(f"{tile},{warp},1" for tile in (512, 1024, 2048, 4096, 8192) for warp in WARPS if 1 <= tile // warp <= 32),
    "2048,256,2",
]
QUICK_VARIANTS = ["1024,128,1", "4096,512,2"]


def with_tiles(tiles: str) -> Optimizer:
    """The step with int8 moments. To trace it asks for the tiles, and the program is lowered next."""

    def step(*arguments: Any) -> tuple[Tree, Tree]:
        os.environ[VARIABLE] = "" if tiles == USUAL else tiles
        return adamx.step(*arguments)

    return Optimizer(adamx.adamw(**HYPER, mu_dtype=INT8, nu_dtype=INT8), step)


def run(record: Record, *, quick: bool, peer_python: str) -> None:
    params = small_leaves(1, *(QUICK if quick else SIZES)[0])
    variants = {tiles: with_tiles(tiles) for tiles in (USUAL, *(QUICK_VARIANTS if quick else VARIANTS))}
    if quick:
        for tiles, optimizer in variants.items():
            record.attempt(f"{tiles}, on a GPU", functools.partial(lowers_for_gpu, optimizer, params, STEPS))
    programs = all_compiled(variants, params, STEPS, record, "")
    builders = those_that_run(Arrays(params).builders(programs), record, "")
    effort = (
        {"budget_s": 0.3, "sample_s": QUICK_SAMPLE_S}
        if quick
        else {"budget_s": min(12.0, record.left() / 2), "sample_s": SAMPLE_S}
    )
    seconds = measure(builders, builds=1, **effort)
    best = sorted(seconds, key=lambda tiles: spread(seconds[tiles]).median)
    moved, rows = bytes_moved(variants[USUAL], params), []
    for tiles in best:
        ms = spread([1e3 * s for s in seconds[tiles]])
        rate = round(moved / ms.median / 1e6)
        record.keep(tiles, ms=ms, gb_per_s=rate, **programs[tiles].found)
        rows.append([tiles, str(ms), str(rate), f"{programs[tiles].found['compile_s']:.2f}"])
    print(f"\n{table(['tile, warp, stages', 'ms', 'GB/s', 'compile s'], rows)}\n", flush=True)
