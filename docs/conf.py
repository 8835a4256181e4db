"""Settings of Sphinx, which makes the pages: launch/docs.sh.

The reference of plug-ins and of the Python API is made from the code at every build, into
docs/reference/, which is not kept.
"""

import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import l2l_jax  # noqa: E402
from l2l_jax.commands import available  # noqa: E402
from l2l_jax.lib.signatures import keyword_defaults  # noqa: E402
from l2l_jax.registry import FOLDERS, FUNCTIONS, find, names  # noqa: E402

project, author = "l2l_jax", "The l2l_jax authors"
version = release = l2l_jax.__version__
copyright = author
extensions = ["myst_nb", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
highlight_language = "text"  # of commands and equations
nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, Any] = {}  # it would load scripts from elsewhere; widgets need a kernel
myst_heading_anchors = 3
smartquotes = False  # they would make a dash of --config
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
html_theme = "furo"
html_title = f"l2l_jax {release}"
html_show_sourcelink = False
html_copy_source = False

PLURALS = {"method": "Methods", "solver": "Solvers", "model": "Models", "task": "Tasks",
           "dataset": "Data sets", "evaluator": "Evaluators", "audit": "Audits",
           "feature_network": "Feature networks"}  # fmt: skip
PYTHON = {
    "l2l_jax.api": "Two functions: run an experiment, load a model.",
    "l2l_jax.loaded": "What `load` returns.",
    "l2l_jax.lib.errors": "What may be raised.",
}
TYPES = {
    "l2l_jax.types": "What the files of plug-ins contain, and the arrays that they exchange.",
    "l2l_jax.model_types": "What a model is.",
    "l2l_jax.audit_types": "What an audit gets and yields.",
    "l2l_jax.bounds": "The values that an argument can have.",
}


def write_reference(app: Any) -> None:
    """Writes docs/reference/: a page for each kind of plug-in, and two of modules."""
    del app
    folder = HERE / "reference"
    folder.mkdir(exist_ok=True)
    pages = {"python": modules("Python API", PYTHON), "types": modules("Types", TYPES)}
    pages["commands"] = commands()
    pages |= {FOLDERS[kind]: plugins(kind, title) for kind, title in PLURALS.items()}
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text() != text:  # an equal page is not read again
            path.write_text(text)


def commands() -> str:
    """A page with the docstring of every subcommand of l2l-jax."""
    parts = [
        "# Commands\n",
        "`l2l-jax NAME` and `python -m` with the module are the same command. `--help` lists the "
        "options.\n",
    ]
    for name, (module, about) in available().items():
        is_package = (HERE.parent / module.replace(".", "/")).is_dir()
        path = "l2l_jax.flags" if name == "run" else f"{module}{'.__main__' * is_package}"
        directive = f".. automodule:: {path}\n   :no-index:\n"
        head = f"## {name}\n\n`python -m {module}`: {about}\n"
        parts.append(f"{head}\n```{{eval-rst}}\n{directive}```\n")
    return "\n".join(parts)


def modules(title: str, entries: dict[str, str]) -> str:
    """A page with everything public of some modules."""
    parts = [f"# {title}\n"]
    for name, about in entries.items():
        members = f".. automodule:: {name}\n   :members:\n   :no-index:\n"
        parts.append(f"## {name}\n\n{about}\n\n```{{eval-rst}}\n{members}```\n")
    return "\n".join(parts)


def plugins(kind: str, title: str) -> str:
    """A page with the docstring, the function and the arguments of every plug-in of a kind."""
    parts = [f"# {title}\n", f"Every file of `l2l_jax/{FOLDERS[kind]}`, from its docstring.\n"]
    for name in names(kind):
        plugin, module = find(kind, name), f"l2l_jax.{FOLDERS[kind]}.{name}"
        function = getattr(plugin, FUNCTIONS[kind])
        rows = [
            f"| `{key}` | `{default!r}` | {plugin.BOUNDS.get(key, '')} |"
            for key, default in keyword_defaults(function).items()
        ]
        table = ["| argument | default | allowed |", "|---|---|---|", *rows]
        parts.append(
            f"## {name}\n\n```{{eval-rst}}\n.. automodule:: {module}\n   :no-index:\n```\n"
        )
        parts.append("\n".join(table if rows else ["It has no arguments."]) + "\n")
    return "\n".join(parts)


def as_written(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Makes reStructuredText of a docstring, which is plain text: equations stay as written."""
    del app, what, name, obj, options
    made = []
    for paragraph in re.split(r"\n\s*\n", "\n".join(lines).strip("\n")):
        is_code = re.search(r"^  |>>>", paragraph, re.M) or re.match(r"python |l2l-jax ", paragraph)
        if is_code:
            indented = "\n".join(f"    {line}" for line in paragraph.splitlines())
            language = "pycon" if ">>>" in paragraph else "text"
            made.append(f".. code-block:: {language}\n\n{indented}\n")
        else:
            pieces = re.split(r"`([^`]+)`", paragraph)
            pieces[1::2] = [f"``{code}``" for code in pieces[1::2]]
            pieces[::2] = [re.sub(r"([\\*|_`:])", r"\\\1", text) for text in pieces[::2]]
            made.append("".join(pieces) + "\n")
    lines[:] = "\n".join(made).splitlines()


def without_missing(app: Any, name: str, source: list[str]) -> None:
    """Takes the notebook out of the table of contents if there is none."""
    del app
    if name == "index" and not (HERE / "explore.ipynb").exists():
        source[0] = source[0].replace("\nexplore\n", "\n")


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", write_reference)
    app.connect("source-read", without_missing)
    app.connect("autodoc-process-docstring", as_written)
