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

autodoc_typehints = "none"  # docstrings say what an argument may be; the annotations are in the source
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
    """Both are events of Sphinx."""
    app.connect("source-read", targets)
    app.connect("autodoc-process-docstring", bars, priority=400)  # before napoleon
