"""Breaks the code in ways that matter, one at a time, and checks that the tests see it.

Run `python tests/mutations.py`. Each mutation is made in a copy; the test file that mirrors the broken one, or the one
named beside it, must fail. Exits with 1 if a mutant survives.
"""

import os
import queue
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from adamx.kernels.native import libraries

ROOT = Path(__file__).parents[1]

SITE = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in type(finder).__module__]
"""
"""Runs when Python starts: the finder of an editable install would find the original before the copy."""


class Mutation(NamedTuple):
    """A line of a file, what it becomes, and the tests that must fail then."""

    what: str
    file: str
    old: str
    new: str
    tests: str = ""


MUTATIONS = [
    Mutation("m is not corrected", "core/correction.py", "correct(moments.mu, moments.mu_weight)", "moments.mu"),
    Mutation("v is not corrected", "core/correction.py", "correct(moments.nu, moments.nu_weight)", "moments.nu"),
    Mutation("ε inside the root", "numerics.py", "root(v + eps_root) + eps\n", "root(v + eps_root + eps)\n"),
    Mutation("b2 is 0.99", "optimizers/adam.py", "b2: Scalar = 0.999", "b2: Scalar = 0.99", "optimizers/test_adamw.py"),
    Mutation("the count stands still", "core/moments.py", "increment(jnp.asarray(before.count))", "jnp.int32(1)"),
    Mutation("scaled by 1.01", "core/rate.py", "as_scalar(-alpha", "as_scalar(-1.01 * alpha"),
    Mutation("the schedule's count stands still", "core/rate.py", "increment(count)", "count"),
    Mutation(
        "v overflows",
        "core/moments.py",
        "numerics.saturate_second_moment(mean(v, numerics.square(g)), largest)",
        "mean(v, numerics.square(g))",
    ),
    Mutation("m is unbounded", "core/moments.py", "numerics.bound_first_moment(m, ", "(lambda x, _: x)(m, "),
    Mutation("the slope of the root is infinite", "numerics.py", "at_zero = y == 0", "at_zero = y < 0"),
    Mutation("precise averages are plain", "numerics.py", "if precise and decay >= 0.5:", "if False:"),
    Mutation("precise weights are plain", "numerics.py", "    if not precise:\n", "    if True:\n"),
    Mutation("averages in the dtype of the moment", "core/moments.py", "self.mu_codec.decode(mu, wide)", "mu", ""),
    Mutation("updates in compute precision", "core/correction.py", "u.astype(update_dtype(g, u))", "u"),
    Mutation("g² of a complex g", "numerics.py", "return g.real * g.real + g.imag * g.imag", "return (g * g).real"),
    Mutation(
        "nesterov does not look ahead", "optimizers/nadam.py", "count=increment(weight.count)", "count=weight.count"
    ),
    Mutation("decay adds nothing", "core/decay.py", "numerics.as_scalar(lam, dtype) * wide_p", "0 * wide_p"),
    Mutation("the mask is ignored", "core/decay.py", "tx if mask is None else", "tx if True else"),
    Mutation("shapes are not checked", "trees.py", "if shape != wanted:", "if False:"),
    Mutation("the message can be mapped over", "core/message.py", "raise TypeError(HINT)", "return [], None"),
    Mutation("a state of one's own in join", "core/composition.py", "if state != optax.EmptyState():", "if False:"),
    Mutation("half-precision betas pass", "hyperparameters.py", "if _is_half(dtype):", "if False:"),
    Mutation(
        "the oracle forgets ε",
        "testing/oracle.py",
        "+ epsilon_root) + epsilon",
        "+ epsilon_root)",
        "optimizers/test_adam.py",
    ),
    Mutation(
        "bits are not compared",
        "testing/report.py",
        "self.identical.append(same_bits(a, b))",
        "self.identical.append(True)",
    ),
    Mutation("thresholds stand still", "storage/dither.py", "jnp.asarray(step, jnp.uint32) * stride", "stride"),
    Mutation("both moments meet the same thresholds", "storage/dither.py", "return bits << 16", "return bits"),
    Mutation("shards begin at 0", "storage/dither.py", "offset = offset or ()", "offset = ()"),
    Mutation("bfloat16 is cut off", "storage/rounding.py", "up = (whole & 0xFFFF) > (bits >> 16)", "up = whole < 0"),
    Mutation(
        "a sum forgets what it drops", "storage/rounding.py", "jnp.where(total < 0, -dropped, dropped)", "0 * total"
    ),
    Mutation("float8 rounds down", "storage/rounding.py", "units - below > fraction(bits)", "units < below"),
    Mutation("v may be kept as 0", "storage/rounding.py", "(whole != 0) & (rounded == 0)", "whole != whole"),
    Mutation("no element stands apart", "storage/int8.py", "jnp.where(at_top, 0, size)", "size"),
    Mutation("small v is kept as 0", "storage/int8.py", "jnp.maximum(k, LOWEST[dtype.name])", "k"),
    Mutation("int8 rounds down", "storage/int8.py", "(y - low > threshold * (high - low))", "(y < low)"),
    Mutation("the sign is lost", "storage/int8.py", "jnp.where(signed < 0, -size, size)", "size"),
    Mutation("nearest where it stalls", "storage/choice.py", "half_ulp > TRACKS * (1 - number)", "False"),
    Mutation(
        "ties to even", "storage/split.py", "(bits + 0x8000) >> 16)", "(bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)"
    ),
    Mutation(
        "the dropped bits are forgotten",
        "precision/master_weights.py",
        "jnp.where(lands, lower, jnp.uint16(0))",
        "0 * lower",
    ),
    Mutation(
        "the state does not see what landed",
        "precision/master_weights.py",
        "jnp.where(lands, lower, jnp.uint16(0))",
        "lower",
    ),
    Mutation(
        "a finite weight behind an infinite parameter", "precision/master_weights.py", " & jnp.isfinite(emitted)", ""
    ),
    Mutation(
        "parameters round to nearest",
        "precision/stochastic_rounding.py",
        "sum_to_bfloat16(start, u, bits)",
        "(start + u).astype(jnp.bfloat16)",
    ),
    Mutation("bytes of v are not counted", "footprint.py", "            add(node.nu)\n", ""),
    Mutation(
        "the step stands still",
        "core/moments.py",
        "before.step + 1 if averages.dithered",
        "before.step if averages.dithered",
        "core/test_state.py",
    ),
    Mutation(
        "the kernel forgets the mask",
        "kernels/one_pass.py",
        "return treedef.flatten_up_to(jax.tree.map(everywhere, mask, params))",
        "return [True] * treedef.num_leaves",
        "kernels/test_parity.py",
    ),
    Mutation(
        "the kernel's schedule is a step ahead",
        "kernels/one_pass.py",
        "rate(jax.tree.leaves(before.others[-1])[0])",
        "rate(jax.tree.leaves(before.others[-1])[0] + 1)",
        "kernels/test_parity.py",
    ),
    Mutation(
        "both weights are that of m",
        "kernels/one_pass.py",
        "((b1, count), (b2, count),",
        "((b1, count), (b1, count),",
        "kernels/test_parity.py",
    ),
    Mutation("every leaf is alone", "kernels/one_pass.py", "len(leaves) == 1)", "True)", "kernels/test_parity.py"),
    Mutation(
        "results go to another leaf",
        "kernels/call.py",
        "return [after(leaf) for leaf in leaves]",
        "return [after(leaf) for leaf in leaves][::-1]",
    ),
    Mutation(
        "a call takes what is sharded",
        "kernels/choice.py",
        'getattr(context, "num_devices", 2) == 1',
        "True",
        "test_sharding.py",
    ),
    Mutation("long blocks are taken", "kernels/layout.py", "codec.block_size in BLOCKS", "True"),
    Mutation("a stale library is used", "kernels/native.py", "library.adamx_interface() != INTERFACE", "False"),
    Mutation(
        "all is left to XLA", "kernels/step.py", 'if backend().name == "native" else plain', "if False else plain"
    ),
    Mutation(
        "precise sums are not dithered",
        "core/moments.py",
        "precise=self.precise, threshold=threshold)",
        "precise=self.precise)",
    ),
    Mutation("m decays as v does", "core/moments.py", "ema(b1, m, g, ", "ema(b2, m, g, ", "laws/test_bias.py"),
    Mutation("one weight", "core/moments.py", "Weight(b2, ", "Weight(b1, ", "laws/test_trust_region.py"),
    Mutation("no root of v", "numerics.py", "= root(v", "= (v", "laws/test_signal_to_noise.py"),
    Mutation("ε is never 0", "numerics.py", "root) + eps\n", "root) + eps + 1e-12\n", "laws/test_invariance.py"),
    Mutation("b1 is larger", "core/moments.py", "b1, b2 = num", "b1, b2 = 0.1 + num", "laws/test_relations.py"),
    Mutation("v only grows", "core/moments.py", "mean(v, numerics", "(v + numerics", "laws/test_sparse_gradients.py"),
    Mutation("a change of atol converges", "loop/run.py", "new[0]) < atol", "new[0]) <= atol"),
    Mutation("faulty gradients converge", "loop/run.py", " & _all_finite(gradients)", ""),
    Mutation("a NaN does not end it", "loop/run.py", "jnp.isfinite(value) & ", "", "loop/test_minimize.py"),
    Mutation("complex uphill", "loop/run.py", "(jnp.conj, g", "(jnp.asarray, g", "loop/test_minimize.py"),
    Mutation("a deaf loop", "loop/stepwise.py", "StopReason.CALLBACK if asked", "GOING_ON if asked"),
    Mutation("a batch too many", "loop/stepwise.py", "islice(feed, max_steps)", "islice(feed, max_steps + 1)"),
    Mutation("any objective", "loop/objective.py", "if value.shape or not", "if not"),
]


def survives(mutation: Mutation, folder: Path) -> bool:
    """Whether the tests still pass with the mutation in place."""
    path = folder / "adamx" / mutation.file
    source = path.read_text()
    if mutation.old not in source:
        raise SystemExit(f"mutation {mutation.what!r}: {mutation.file} has no {mutation.old!r} any more")
    path.write_text(source.replace(mutation.old, mutation.new))
    parts = Path(mutation.file)
    tests = mutation.tests or str(parts.with_name(f"test_{parts.name}"))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", f"tests/{tests}"]
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    path.write_text(source)
    if result.returncode not in (0, 1):
        raise SystemExit(f"mutation {mutation.what!r}: pytest could not run\n{result.stdout}{result.stderr}")
    return result.returncode == 0


def copied(folder: Path) -> Path:
    """A copy of the package and its tests, found before the one that is installed."""
    for part in ("adamx", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "sitecustomize.py").write_text(SITE)
    for library in libraries():
        shutil.copy(library, folder / "adamx" / "kernels" / "cpu")
    return folder


def main() -> int:
    workers = os.cpu_count() or 1
    free: queue.SimpleQueue[Path] = queue.SimpleQueue()

    def survivor(mutation: Mutation) -> str:
        folder = free.get()
        try:
            return mutation.what if survives(mutation, folder) else ""
        finally:
            free.put(folder)

    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(workers) as pool:
        for worker in range(workers):
            free.put(copied(Path(name) / str(worker)))
        answers = tqdm(pool.map(survivor, MUTATIONS), total=len(MUTATIONS), unit="mutant", disable=None)
        survivors = [what for what in answers if what]
    for what in survivors:
        print(f"survived: {what}")
    print(f"{len(MUTATIONS) - len(survivors)} of {len(MUTATIONS)} mutants were caught")
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main())
