"""Tries hostile texts and values in a run folder, and looks at the pages that are made of it.

    python -m launch.drills.strings                  all of them, in about three minutes
    python -m launch.drills.strings --only script    those whose name contains a word

A text stands in every place of the folder that may hold any text: names of figures, classes, tasks
and phases, digests, units, notes, reasons, file names. The page of the run, the page of a
comparison and the markdown table are made. Each page is parsed, and opened in headless Chromium if
it is installed: harmless means that no element, no attribute and no script came from the text. A
value stands in one place of one file; it is explained in a line that names the file, or is shown.
"""

import argparse
import contextlib
import html.parser
import io
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from l2l_jax.lib import cli
from l2l_jax.report import __main__ as report
from l2l_jax.report.document import script
from launch.drills.ending import ending, failed, table
from tests.report.runs import hostile, make

MARK = "data-drill"  # attribute of <html> that scripts of the texts below set
RUN = f"document.documentElement.setAttribute('{MARK}',1)"
SECONDS = 60  # for one page
MEMORY_BYTES = 3 << 30  # of data and heap; a page of a run takes a tenth of it

TEXTS = {
    "script": f"<script>{RUN}</script>",
    "script in capitals": f"<SCRIPT>{RUN}</SCRIPT>",
    "script after a closed style": f"</style><script>{RUN}</script>",
    "script after a closed title": f"</title><script>{RUN}</script>",
    "script after a closed pre": f"</pre><script>{RUN}</script>",
    "script after a closed svg": f"</text></svg><script>{RUN}</script>",
    "script in CDATA": f"<![CDATA[<script>{RUN}</script>]]>",
    "script after a comment": f"--><script>{RUN}</script><!--",
    "script that is cut": f"<scr<script>ipt>{RUN}</script>",
    "script from elsewhere": "<script src=//example.org/x.js></script>",
    "handler of an image": f"<img src=x onerror={RUN}>",
    "handler of an svg": f"<svg onload={RUN}>",
    "handler of a body": f"<body onload={RUN}>",
    "handler of details": f"<details open ontoggle={RUN}>",
    "handler of a focus": f"<input autofocus onfocus={RUN}>",
    "handler after a double quote": f'" onmouseover="{RUN}" autofocus onfocus="{RUN}',
    "handler after a single quote": f"' onmouseover='{RUN}' x='",
    "handler after a backtick": f"` onmouseover={RUN}",
    "handler in an animation": f"<svg><animate onbegin={RUN} attributeName=x dur=1s>",
    "frame": f'<iframe srcdoc="<script>parent.{RUN}</script>"></iframe>',
    "frame of a script address": f"<iframe src=javascript:parent.{RUN}></iframe>",
    "object": f'<object data="data:text/html,<script>parent.{RUN}</script>"></object>',
    "link of a script address": f"<a href=javascript:{RUN}>x</a>",
    "markdown link": f"[x](javascript:{RUN})",
    "markdown image": "![x](https://example.org/x.png)",
    "markdown table": "a | b\n|---|\n| c",
    "base address": "<base href=//example.org/>",
    "refresh": "<meta http-equiv=refresh content=0;url=//example.org>",
    "form": "<form action=//example.org><button>x</button></form>",
    "style": "<style>*{background:url(//example.org/x)}</style>",
    "style import": "</style><style>@import '//example.org/x.css';",
    "style attribute": '" style="background:url(//example.org/x)',
    "entities": "&lt;script&gt;&#x3c;script&#x3e;&quot;&apos;",
    "template": "${x} $body $title {{7*7}} %s {0}",
    "mathematics": r"$\frac{a}{b$ $$ \href{javascript:x}{y} $\undefined$",
    "terminal": "\x1b[2J\x1b]0;x\x07\r\x08 bell \x07",
    "reversed text": "\u202egnp.exe\u2066\u2069\u200f",
    "half of a pair": "\ud800 \udfff",
    "zero bytes": "a\0b\0",
    "line ends": "a\nb\r\nc\u2028d\u2029e",
    "long": "x" * 100_000,
    "many tags": "<b>" * 20_000,
    "empty": "",
    "spaces": "   ",
    "path": "../../../../etc/passwd",
    "emoji": "\U0001f480\u200d\U0001f525" * 10,
}

VALUES: dict[str, tuple[str, tuple[str | int, ...], Any]] = {
    "no results": ("results.json", (), []),
    "results are a text": ("results.json", (), "x"),
    "figures missing": ("results.json", ("figures",), None),
    "figure without a title": ("results.json", ("figures", "fid"), {"name": "fid"}),
    "digits beyond all": ("results.json", ("figures", "fid", "digits"), 10**9),
    "digits that are a text": ("results.json", ("figures", "fid", "digits"), "2"),
    "a figure that is a text": (
        "results.json", ("tasks", "center", "original", "retain", "fid"), "x"
    ),
    "a figure that is nan": (
        "results.json", ("tasks", "center", "unlearned", "retain", "fid"), float("nan")
    ),
    "a figure of 300 digits": (
        "results.json", ("tasks", "center", "unlearned", "retain", "fid"), 10**300
    ),
    "an infinite figure": ("results.json", ("unlearned", "forget", "fid"), float("inf")),
    "no task": ("results.json", ("tasks",), {}),
    "counts that are texts": ("results.json", ("counts",), {"retain": "x"}),
    "a side without a split": ("results.json", ("counts", "x"), 3),
    "steps that are a number": ("results.json", ("steps", "unlearn"), 3),
    "weights that are a list": ("results.json", ("digests", "weights"), [1]),
    "a direction nobody knows": ("results.json", ("figures", "fid", "good"), "left"),
    "phases that do not exist": ("config.json", ("phases",), ["x"]),
    "no phases": ("config.json", ("phases",), []),
    "a seed that is a text": ("config.json", ("seed",), "x"),
    "a config nested deeply": ("config.json", ("model", "args", "x"), None),  # filled below
    "classes that are numbers": ("splits/forget_eval.json", ("classes",), [1]),
    "a split that is a list": ("splits/forget_eval.json", (), [1]),
    "launches that are a text": ("versions.json", ("continued_with",), "x"),
    "points that are texts": ("tsne.json", ("groups", 0, "points"), [["a", "b"]]),
    "points that are infinite": ("tsne.json", ("groups", 0, "points"), [[float("inf"), 1]]),
    "no points": ("tsne.json", ("groups",), []),
}  # fmt: skip

TAGS = {
    "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p", "div", "em",
    "i", "b", "span", "br", "table", "thead", "tbody", "tr", "th", "td", "small", "img", "details",
    "summary", "pre", "code", "dl", "dt", "dd", "ul", "li", "svg", "metadata", "rdf:rdf", "cc:work",
    "dc:type", "dc:format", "dc:creator", "cc:agent", "dc:title", "defs", "clippath", "rect", "g",
    "path", "use", "text", "tspan", "a", "caption", "button", "label", "select", "option", "output",
    "dialog", "header", "input", "wbr",
}  # fmt: skip


class Reader(html.parser.HTMLParser):
    """Collects elements, attributes and addresses that no page of ours has."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.styles = 0
        self.in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """One element of the page."""
        values = dict(attrs)
        self.styles += tag == "style"
        self.in_script = tag == "script" and not attrs
        self.found += [tag] if tag not in TAGS and not self.in_script else []
        self.found += [key for key in values if key.startswith("on") or key == "autofocus"]
        links = [values.get(key) or "" for key in ("src", "href", "xlink:href", "action")]
        self.found += [link for link in links if link and not link.startswith(("data:image/", "#"))]
        style = values.get("style") or ""
        if "url(" in re.sub(r"url\(#\w+\)", "", style):
            self.found.append(style)

    def handle_data(self, data: str) -> None:
        """The text of an element: the only script is ours."""
        if self.in_script and data != script():
            self.found.append("script")

    def handle_endtag(self, tag: str) -> None:
        """The end of an element."""
        self.in_script = False


def foreign(page: str) -> list[str]:
    """What is on a page that no page of ours has, by parsing it."""
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader.found


def unlimited() -> None:
    """Gives a child, such as a browser, the memory that it wants."""
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def ran(page: Path, chromium: str | None) -> bool:
    """Whether a script of a text ran when the page was opened, or the page was left."""
    if not chromium:
        return False
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=1000"]
    with tempfile.TemporaryDirectory(prefix="l2l_drill_") as profile:
        seen = subprocess.run(
            [chromium, *options, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()],
            capture_output=True, text=True, errors="replace", timeout=SECONDS,
            preexec_fn=unlimited,
        ).stdout  # fmt: skip
    root = re.search(r"<html[^>]*>", seen)
    return root is None or MARK in root[0] or "<main>" not in seen


def reported(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs `python -m l2l_jax.report ARGUMENTS` in this process, which has imported matplotlib."""
    said, code = io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            cli.run_with_clear_errors(report.main, [*arguments])
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except BaseException:
            code = 1
            traceback.print_exc()
    return subprocess.CompletedProcess([], code, said.getvalue(), "")


def try_text(text: str, chromium: str | None) -> str:
    """How pages of runs with this text everywhere ended."""
    with tempfile.TemporaryDirectory(prefix="l2l_drill_") as folder:
        runs = [hostile(Path(folder) / name, text) for name in ("a", "b")]
        pages = [runs[0] / "report.html", Path(folder) / "compared.html"]
        commands = (
            [str(runs[0])],
            [*map(str, runs), "--out", str(pages[1])],
            [*map(str, runs), "--markdown"],
        )
        for command in commands:
            result = reported(command)
            if result.returncode:
                return ending(result, names=("results.json", "config.json", "splits"))
            said = result.stdout + result.stderr
            if re.search("[\x00-\x08\x0b-\x1f\x7f]", said) or "](" in said.replace("\\]", ""):
                return "silent"
        browser = chromium if MARK in text else None  # the others have nothing that could run
        if any(foreign(page.read_text()) or ran(page, browser) for page in pages):
            return "silent"
    return "harmless"


def try_value(name: str) -> str:
    """How the page of a run with this value in one place ended."""
    file, path, value = VALUES[name]
    if name == "a config nested deeply":
        for _ in range(400):
            value = {"x": value}
    with tempfile.TemporaryDirectory(prefix="l2l_drill_") as folder:
        workdir = make(Path(folder) / "a")
        content = node = json.loads((workdir / file).read_text())
        for key in path[:-1]:
            node = node[key]
        if path:
            node[path[-1]] = value
        (workdir / file).write_text(json.dumps(content if path else value))
        result = reported([str(workdir)])
        if result.returncode == 0:
            return "harmless" if not foreign((workdir / "report.html").read_text()) else "silent"
        return ending(result, names=(file.rpartition("/")[2],))


def main() -> None:
    """The command line of this module's docstring."""
    parser = argparse.ArgumentParser("launch.drills.strings", description=__doc__)
    parser.add_argument("--only", default="", help="try those whose name contains this")
    parser.add_argument("--verbose", action="store_true", help="print each line at once")
    args = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, resource.RLIM_INFINITY))
    print("Chromium:", chromium or "not installed; pages are only parsed")
    began, rows = time.time(), []
    for name in [*TEXTS, *VALUES]:
        if args.only in name:
            how = try_text(TEXTS[name], chromium) if name in TEXTS else try_value(name)
            rows.append((f"{'text' if name in TEXTS else 'value'}: {name}", how))
            if args.verbose:
                print(*rows[-1], flush=True)
    print(table(rows, began))
    sys.exit(failed(rows))


if __name__ == "__main__":
    main()
