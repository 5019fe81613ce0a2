"""The documentation site: `sphinx-build -W --keep-going -b html docs site`."""

import importlib.metadata
import re
from typing import Any

project = "adamx"
author = "the authors of adamx"
version = release = importlib.metadata.version("adamx")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_design"]
myst_enable_extensions = ["colon_fence"]
root_doc = "index"
exclude_patterns = ["results"]

myst_heading_anchors = 3  # pages link to their own headings, as the forge has them

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_use_type_comments = False
napoleon_use_ivar = True  # the attributes of a state are described once
napoleon_attr_annotations = False
napoleon_use_rtype = False
default_role = "py:obj"  # `adam` in a docstring is a link, anything else stays as it is
maximum_signature_line_length = 100
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"adamx {version}"
html_show_copyright = False
html_copy_source = False


NUMBER = r"~[\w.]*Array \| ~numpy\.ndarray \| ~numpy\.bool \| ~numpy\.number \| bool \| int \| float \| complex"
ALIASES = {
    NUMBER + r" \| ~typing\.Iterable\[ArrayTree\] \| ~typing\.Mapping\[~typing\.Any, ArrayTree\]": "ArrayTree",
    rf"float \| ~[\w.]*Array \| ~collections\.abc\.Callable\[\[{NUMBER}\], {NUMBER}\]": "ScalarOrSchedule",
    r"str \| type\[~typing\.Any\] \| ~numpy\.dtype \| ~[\w.]*SupportsDType": "DTypeLike",
    NUMBER: "ArrayLike",
    "= an error": "= ...",  # defaults that are no Python
    r"= <class '[\w.]*?(\w+)'>": r"= \1",
}
"""What unions are called in the source, before Python writes them out."""


def aliases(app: Any, what: str, name: str, obj: Any, options: Any, signature: Any, returns: Any) -> Any:
    """The types of a signature by their names."""
    for union, alias in ALIASES.items():
        signature, returns = (text and re.sub(union, alias, text) for text in (signature, returns))
    return signature, returns


def targets(app: Any, page: str, source: list[str]) -> None:
    """`<a id="name"></a>`, which links on the forge lead to, as MyST's `(name)=`."""
    source[0] = re.sub(r'^<a id="(\w+)"></a>$', r"(\1)=", source[0], flags=re.MULTILINE)


def bars(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """The bars of |g| in a docstring, which reStructuredText takes for substitutions; not in code."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            pieces = re.split(r"(`[^`]*`)", line)
            lines[i] = "".join(p if p.startswith("`") else p.replace("|", r"\|") for p in pieces)


def setup(app: Any) -> None:
    """All are events of Sphinx."""
    app.connect("source-read", targets)
    app.connect("autodoc-process-signature", aliases)
    app.connect("autodoc-process-docstring", bars, priority=400)  # before napoleon
