"""The documentation: its code runs, its links lead somewhere, its excerpts are the source, and it names every name.

    python tests/test_docs.py sharding.md

runs the code of one page, as the test does for a page that needs several devices.
"""

import ast
import contextlib
import doctest
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {p.relative_to(ROOT).as_posix(): p for p in ROOT.glob("*.md")} | {
    p.relative_to(DOCS).as_posix(): p for p in sorted(DOCS.rglob("*.md"))
}
CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""What runs. Excerpts of the source are ```py with the file's name; sessions and tables have another fence."""
EXCERPT = re.compile(r"^```py (adamx/\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PRINTED = re.compile(r"\s+It prints[^\n]*:\n\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""What the block before it prints."""
ROW = re.compile(r"^\|.*\| `(.+)` \| `(adamx/\S+\.py)`.*\|$", re.MULTILINE)
"""A line of a table whose last two cells are code and the file that it is in."""

MODEL = """
import jax, jax.numpy as jnp, optax, adamx
params = {"embedding": jnp.ones((32, 16)), "w": jnp.ones((16, 4)), "b": jnp.zeros(4)}
gradients = jax.tree.map(jnp.ones_like, params)
"""
README = """
import jax, jax.numpy as jnp
params = {"dense": {"kernel": jnp.ones((32, 16)), "bias": jnp.zeros(16)}, "norm": {"scale": jnp.ones(16)}}
gradients = jax.tree.map(jnp.ones_like, params)
"""
PRELUDE = {"README.md": README, "low-precision.md": MODEL}
"""The names that the blocks of a page take for granted. The other pages bring their own."""
HELPERS = {"wrong_state", "wrong_codes", "_no_number"}
"""What makes an error from other arguments than its text."""
SAME = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS

SEVERAL_DEVICES = {"sharding.md", "how-to/shard-the-state.md"}
FLAGS = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}


def run_page(name):
    """Runs the blocks of a page in one namespace and in order; those with prompts must print what they show."""
    text, namespace = PAGES[name].read_text(), {"__name__": name}
    exec(PRELUDE.get(name, ""), namespace)
    for block in CODE.finditer(text):
        source, line = block[1], text[: block.start(1)].count("\n")
        if not source.startswith(">>>"):
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile("\n" * line + source, str(PAGES[name]), "exec"), namespace)
            if shown := PRINTED.match(text, block.end()):
                same = doctest.OutputChecker().check_output(shown[1], printed.getvalue(), SAME)
                assert same, f"{name} prints something else:\n{printed.getvalue()}"
            continue
        test = doctest.DocTestParser().get_doctest(source, namespace, name, str(PAGES[name]), line)
        result = doctest.DocTestRunner(optionflags=SAME).run(test, clear_globs=False)
        assert result.failed == 0, f"{name}: a session shows something else, see above"


def named(pattern):
    """What the pattern finds in the pages of the reference, in order."""
    return [name for page in sorted((ROOT / "docs" / "api").glob("*.md")) for name in pattern.findall(page.read_text())]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if CODE.search(page.read_text())])
def test_code_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if name not in SEVERAL_DEVICES:
        run_page(name)
        return
    command = [sys.executable, __file__, name]
    result = subprocess.run(command, env=os.environ | FLAGS, capture_output=True, text=True, check=False)
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]


@pytest.mark.slow
def test_the_notebook_runs_and_prints_what_it_shows(monkeypatch, tmp_path):
    """Its cells are plain Python, without commands of IPython, so that they run without a kernel of Jupyter."""
    monkeypatch.chdir(tmp_path)
    notebook, namespace = json.loads((ROOT / "examples" / "adamx_in_ten_minutes.ipynb").read_text()), {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec("".join(cell["source"]), namespace)
            shown = "".join(line for output in cell["outputs"] for line in output.get("text", []))
            assert printed.getvalue() == shown
    namespace["plt"].close("all")


def test_every_block_of_python_is_one_that_runs():
    for name, page in PAGES.items():
        text = page.read_text()
        assert len(CODE.findall(text)) == text.count("```python"), name


@pytest.mark.parametrize(("file", "excerpt"), EXCERPT.findall(PAGES["algorithm.md"].read_text()))
def test_excerpts_are_the_source(file, excerpt):
    """Each piece between two lines of `...` stands there, word for word and in this order."""
    source = "\n".join(line.strip() for line in (ROOT / file).read_text().splitlines())
    at = 0
    for piece in re.split(r"^\s*\.\.\.$", excerpt, flags=re.MULTILINE):
        lines = "\n".join(line.strip() for line in piece.strip().splitlines())
        assert lines in source[at:], f"{file} has no longer:\n{lines}"
        at = source.index(lines, at) + len(lines)


def test_lines_beside_the_algorithm_are_the_source():
    rows = ROW.findall(PAGES["algorithm.md"].read_text())
    assert len(rows) >= 7
    for code, file in rows:
        assert code in (ROOT / file).read_text(), f"{file} has no longer {code}"


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files(name):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", PAGES[name].read_text()):
        if not target.startswith(("https://", "http://")):
            assert (PAGES[name].parent / target).exists(), f"{name}: {target}"


@pytest.mark.parametrize("name", PAGES)
def test_tests_that_are_named_exist(name):
    tests = "\n".join(p.read_text() for p in (ROOT / "tests").rglob("*.py"))
    text = PAGES[name].read_text()
    for path in re.findall(r"\btests/[\w/]+(?:\.\w+)?", text):
        assert (ROOT / path).exists(), f"{name}: {path}"
    for test in re.findall(r"`(test_\w+)`", text):
        assert f"def {test}(" in tests, f"{name}: {test}"


def test_pages_use_the_words_of_the_field():
    """Not words that only this project uses; what a program prints and error texts stay as they are."""
    private = re.compile(
        r"likewise|coded moments|the same bits|equal bits|right on average|(?<!error )\bbars?\b|to the bit\b"
    )
    for name, page in PAGES.items():
        prose = re.sub(r"^```.*?^```$|`[^`\n]+`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        if name not in {"changelog.md", "experiments.md"}:
            assert not private.findall(prose), name


def written(node, names):
    """The text of a string in the source, with "..." for what is filled in; None if the source does not tell."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(written(part, names) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return names.get(ast.unparse(node.value), "...")
    return names.get(ast.unparse(getattr(node, "func", node)).removesuffix(".format"))


def texts(nodes, names):
    """The names that stand for texts, and the texts."""
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.JoinedStr):
            yield ast.unparse(node.targets[0]), written(node.value, names)


def messages():
    """What `raise` and `warnings.warn` say in adamx, but for errors that repeat another one."""
    trees = {file: list(ast.walk(ast.parse(file.read_text()))) for file in sorted((ROOT / "adamx").rglob("*.py"))}
    constants = {}
    for nodes in trees.values():
        constants |= {name: text for name, text in texts(nodes, {}) if name.isupper()}
    for file, nodes in trees.items():
        names = constants | dict(texts(nodes, constants))
        for node in nodes:
            call = node.exc if isinstance(node, ast.Raise) else node
            if not isinstance(call, ast.Call) or not call.args or "{error}" in ast.unparse(call):
                continue
            by = ast.unparse(call.func)
            if by == "warnings.warn" or (isinstance(node, ast.Raise) and by not in HELPERS):
                text = written(call.args[0], names)
                if text and re.search(r"\w{3}", text):
                    yield f"{file.name}:{node.lineno}", text


def test_troubleshooting_has_every_message():
    """A cell in backticks is a part of a message, with "..." for what differs."""
    cells = re.findall(r"^\| `([^`]+)`(?! \(JAX\))", PAGES["troubleshooting.md"].read_text(), re.MULTILINE)
    parts = {cell: re.compile(".*".join(re.escape(x.strip()) for x in cell.split("...")), re.DOTALL) for cell in cells}
    said = dict(messages())
    missing = {where: text for where, text in said.items() if not any(part.search(text) for part in parts.values())}
    assert len(said) > 140
    assert not missing, "\n".join(f"{where}: {text}" for where, text in missing.items())


def test_the_reference_has_every_public_name_once():
    names = named(re.compile(r"^\.\. auto(?:function|class):: (\S+)$", re.MULTILINE))
    own = [name for name in names if "." not in name]
    tree = ast.parse((ROOT / "adamx" / "__init__.py").read_text())
    lines = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module.startswith("adamx.")]
    assert sorted(own) == sorted(alias.name for node in lines for alias in node.names)
    for folder in (
        "diagnostics",
        "interop",
        "kernels",
        "loop",
        "optimizers",
        "precision",
        "sharding",
        "storage",
        "testing",
    ):
        imported = re.findall(r"import (\w+) as \1$", (ROOT / "adamx" / folder / "__init__.py").read_text(), re.M)
        assert sorted(n for n in names if n.startswith(f"adamx.{folder}.")) == sorted(
            f"adamx.{folder}.{n}" for n in imported
        )


if __name__ == "__main__":
    run_page(sys.argv[1])
