import ast
import importlib
import inspect
import re
from pathlib import Path

import optax
import pytest

import adamx
import adamx.testing

TREE = ast.parse(Path(adamx.__file__).read_text())
IMPORTS = [node for node in TREE.body if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("adamx.")]
PUBLIC = [alias.name for node in IMPORTS for alias in node.names]
DEPRECATED = {"fused_adam", "fused_adamw"}
CURRENT = [name for name in PUBLIC if name not in DEPRECATED]
TESTING = ["reference_adam", "compare", "assert_equivalent"]
STORAGE = ["Codec", "Float", "Int8", "Quantized", "shard_offsets"]
CASES = [*CURRENT, *TESTING, *STORAGE]
DOCUMENTED = [
    *(getattr(adamx, n) for n in CURRENT),
    *(getattr(adamx.testing, n) for n in TESTING),
    *(getattr(adamx.storage, n) for n in STORAGE),
]


def test_the_names_that_the_readme_promises():
    assert set(PUBLIC) >= {
        *("Moments", "MomentsState", "adam", "adamw", "add_decayed_weights", "bias_correction", "join", "nesterov"),
        *("on_first_moment", "scale_by_adam", "scale_by_lr", "scale_by_moments", "uncorrected"),
        *("with_master_weights", "master_params", "with_stochastic_rounding", "state_bytes"),
        *("step", "chain", "explain", "clip_by_global_norm"),
    }


def test_names_are_exported_once_and_explicitly():
    assert all(alias.asname == alias.name for node in IMPORTS for alias in node.names)
    assert len(PUBLIC) == len(set(PUBLIC))
    assert len(CURRENT) <= 58


@pytest.mark.parametrize("name", adamx._MOVED)
def test_a_name_that_has_moved_warns_and_is_the_same_thing(name):
    module = importlib.import_module(adamx._MOVED[name])
    with pytest.warns(DeprecationWarning, match=rf"adamx\.{name} is {module.__name__}\.{name} since 0\.2"):
        assert getattr(adamx, name) is getattr(module, name)


@pytest.mark.parametrize("name", ["flax", "testing"])
def test_modules_that_are_imported_when_they_are_asked_for(name, monkeypatch):
    module = importlib.import_module(f"adamx.{name}")
    monkeypatch.delattr(adamx, name)
    assert getattr(adamx, name) is module


def test_a_name_that_never_was_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'adamx' has no attribute 'adamz'"):
        adamx.adamz  # noqa: B018


@pytest.mark.parametrize("thing", DOCUMENTED, ids=CASES)
def test_every_public_name_has_an_example_that_runs(thing):
    doc = inspect.getdoc(thing)
    assert doc
    if not issubclass(thing, tuple) if inspect.isclass(thing) else True:
        assert ">>>" in doc


OPTIMIZERS = [getattr(adamx.optimizers, name) for name in dir(adamx.optimizers)]
FUNCTIONS = {f.__name__: f for f in [*DOCUMENTED, *OPTIMIZERS] if inspect.isfunction(f)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_says_what_it_takes_and_gives(name):
    doc = inspect.getdoc(FUNCTIONS[name])
    for argument in inspect.signature(FUNCTIONS[name]).parameters:
        assert re.search(rf"^    \**{argument}: \S", doc, re.MULTILINE), f"{name} says nothing of {argument}"
    assert "\nReturns:\n" in doc or inspect.signature(FUNCTIONS[name]).return_annotation in (None, "None")


@pytest.mark.parametrize("name", ["adam", "adamw", "scale_by_adam", "scale_by_moments", "bias_correction"])
def test_constructors_return_optax_transformations(name):
    tx = getattr(adamx, name)(*([1e-3] if name in ("adam", "adamw") else []))
    assert isinstance(tx, optax.GradientTransformationExtraArgs)


def test_the_package_is_typed():
    assert (Path(adamx.__file__).parent / "py.typed").exists()


def test_the_version_is_that_of_the_changelog():
    changelog = (Path(__file__).parents[1] / "docs" / "changelog.md").read_text()
    assert f"## {adamx.__version__}" in changelog
    assert importlib.metadata.version("adamx") == adamx.__version__
