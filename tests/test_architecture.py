"""The structure of the project: layers that point one way, short files, tests that mirror the source."""

import ast
import functools
import re
import sys
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import adamx

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "adamx"
LAYERS = {
    "numerics": 0,
    "hyperparameters": 0,
    "variables": 0,
    "patterns": 0,
    "shards": 0,
    "differences": 0,
    "trees": 0,
    "finite": 0,
    "norm": 0,
    "half_life": 1,
    "storage": 0,
    "core": 1,
    "optimizers": 2,
    "precision": 2,
    "guard": 2,
    "accumulation": 2,
    "injection": 2,
    "routing": 2,
    "spikes": 2,
    "paths": 2,
    "sharding": 2,
    "kernels": 4,
    "footprint": 3,
    "clip": 2,
    "deprecated": 3,
    "ema": 3,
    "metrics": 3,
    "digest": 3,
    "interop": 3,
    "diagnostics": 3,
    "testing": 3,
    "loop": 5,
    "streaming": 5,
    "host": 6,
    "flax": 5,
}
# Inside layer 0 the order is this one, from the formulas up.
BASE = [
    "numerics",
    "hyperparameters",
    "shards",
    "variables",
    "differences",
    "trees",
    "finite",
    "norm",
    "patterns",
    "storage",
]
PROGRAMS = ["adamx", "tests", "examples", "benchmarks"]
# Tests of the whole, which no single source file stands for.
WHOLE = {
    "test_chain_updates",
    "test_checkpoints",
    "test_architecture",
    "test_public_api",
    "test_promises",
    "test_inputs",
    "test_family",
    "test_peers",
    "test_parity",
    "test_sharding",
    "test_low_precision",
    "test_types",
    "test_docs",
    "test_results",
    "test_mutants",
    "test_conftest",
    "test_migration",
    "test_refusals",
}
# Folders of such tests.
WHOLES = {"compiled", "composition", "laws", "soak"}


def modules():
    return sorted(p for p in SOURCE.rglob("*.py") if p.parent != SOURCE or p.name != "__init__.py")


def unit(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path):
    """The modules of adamx that a file imports, as the units of LAYERS, and "" for the package itself."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "adamx":
            names = [a.name for a in node.names] if node.module == "adamx" else [node.module.split(".")[1]]
            yield from names
        elif isinstance(node, ast.Import):
            yield from (a.name.partition("adamx")[2].strip(".") for a in node.names if a.name.startswith("adamx"))


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_to_lower_layers(path):
    here = unit(path)
    for there in imports(path):
        if path.name == "__main__.py" and there == "":
            continue  # a program uses the public names
        assert there in LAYERS, f"{path} imports {there or 'the package itself'}"
        lower = LAYERS[there] < LAYERS[here] or there == here
        below = there in BASE and here in BASE and BASE.index(there) < BASE.index(here)
        assert lower or below, f"{path}: {here} imports {there}"


@pytest.mark.parametrize("folder", PROGRAMS)
def test_files_are_short(folder):
    long = {p.name: n for p in (ROOT / folder).rglob("*.py") if (n := len(p.read_text().splitlines())) > 250}
    assert not long


def test_functions_are_short():
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                doc = node.body[0].end_lineno if ast.get_docstring(node) else node.body[0].lineno - 1
                assert node.end_lineno - doc <= 60, f"{path}: {node.name}"


def test_tests_mirror_the_source():
    sources = {p.relative_to(SOURCE).with_suffix("") for p in modules() if not p.name.startswith("__init__")}
    tests = {p.relative_to(ROOT / "tests") for p in (ROOT / "tests").rglob("test_*.py")}
    mirrored = {t.parent / t.stem.removeprefix("test_") for t in tests if t.parts[0] not in WHOLES}
    assert {s for s in sources if s.name != "__main__"} - mirrored == set()
    assert {m for m in mirrored - sources if f"test_{m.name}" not in WHOLE and m.name != "main"} == set()


@pytest.mark.parametrize("folder", ["examples", "benchmarks"])
def test_programs_use_public_names_only(folder):
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("adamx."):
                assert node.module == "adamx.testing", f"{path} imports from {node.module}"


def test_no_vague_names():
    assert not [p for p in SOURCE.rglob("*") if p.stem in {"utils", "common", "base", "misc", "helpers"}]


ADAM, ADAMW = adamx.adam(1e-3), adamx.adamw(1e-3)
PATHS = {
    "adamx.adam(1e-3).update` calls": (ADAM, ADAM.update, 100),
    "adamx.step(adamx.adamw(1e-3), ...)` calls": (ADAMW, functools.partial(adamx.step, ADAMW), 200),
}


@pytest.mark.parametrize("title", PATHS)
def test_the_page_names_the_files_that_a_gradient_goes_through(title):
    """Each is entered, and all calls into adamx while JAX traces and lowers are few."""
    tx, function, bound = PATHS[title]
    page = (ROOT / "docs/contributing.md").read_text().partition(title)[2].partition("\n\nW")[0]
    named = set(re.findall(r"^\d+\. `([a-z_/]+[.]py)`", page, re.MULTILINE)) - {"optimizers/adam.py"}
    params = [jnp.ones((512, 512))] * 2
    state, calls = tx.init(params), Counter()

    def count(frame, event, _):
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(SOURCE) and not frame.f_code.co_name.startswith("<"):
            calls[str(path.relative_to(SOURCE))] += 1

    def lower():
        jax.clear_caches()
        jax.jit(function).lower(params, state, params)

    lower()  # finds the library once
    sys.setprofile(count)
    try:
        lower()
    finally:
        sys.setprofile(None)
    assert len(named) >= 8
    assert named <= set(calls)
    assert calls.total() <= bound
