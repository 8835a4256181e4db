"""README.md and docs/: commands are run or say what they need, examples run, tables are complete.

A block of commands in a page is run by a test, or its first line says what the tests lack, such as
"# Needs: ImageNet." The words of both are checked: modules, scripts, options, configs, keys and
values, up to the plan of a run.
"""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from l2l_jax import flags
from l2l_jax.commands import COMMANDS
from l2l_jax.engine.plan import resolve
from l2l_jax.lib import cli
from l2l_jax.lib.signatures import keyword_defaults
from l2l_jax.registry import FUNCTIONS, find, names
from l2l_jax.weights.published import MODEL_FILES
from tests.helpers import ROOT, call

DOCS = ROOT / "docs"
OTHERS = ("launch.md", "api.md")  # tests/launch/launch_docs_test.py, tests/api_test.py
MADE = ("_build", "reference")  # folders that a build writes
PAGES = [
    ROOT / "README.md",
    *(p for p in sorted(DOCS.rglob("*.md")) if not {*MADE} & {*p.relative_to(DOCS).parts}),
]
NEEDS = "# Needs: "
RUN = {  # {command: the test that runs it}
    "launch/demo.sh": ".ci/run",
    "launch/test.sh": ".ci/run",
    "l2l-jax weights list": "package_test.py",
    "python launch/sweep.py": "test_the_dry_run_of_the_grid",
}


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def blocks(path, language):
    """The code blocks of a page in a language; "" = commands."""
    found = re.findall(r"^```(\S*)\n(.*?)^```$", path.read_text(), flags=re.DOTALL | re.M)
    return [block for name, block in found if name == language]


def lines(block):
    """Yields the words of every command of a block."""
    for line in block.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


COMMANDS_OF_PAGES = [
    pytest.param(words, id=f"{name_of(page)}: {' '.join(words)[:90]}")
    for page in PAGES
    if page.name != "launch.md"
    for block in blocks(page, "")
    for words in lines(block)
]


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A folder with the files that the pages show: blocks whose first line is "# mine/..."."""
    folder = tmp_path_factory.mktemp("pages")
    for page in PAGES:
        for block in blocks(page, "python"):
            if found := re.match(r"# (mine/\S+)\n", block):
                path = folder / found[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.removeprefix(found[0]))
    return folder


def test_there_are_pages_commands_and_examples(mine):
    assert len(PAGES) > 20
    assert len(COMMANDS_OF_PAGES) > 60
    assert {p.parent.name for p in mine.rglob("*.py")} == {
        "methods", "models", "configs", "datasets", "audits"}  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_block_is_run_or_says_what_it_needs(page):
    languages = set(re.findall(r"^```(\S+)$", page.read_text(), re.M))
    assert languages <= {"python", "text", "{toctree}"}
    for block in blocks(page, ""):
        marked = block.startswith(NEEDS)
        known = all(" ".join(words).startswith(tuple(RUN)) for words in lines(block))
        assert marked or known or page.name == "launch.md", block


def test_the_tests_of_unmarked_commands_exist():
    ci = (ROOT / ".ci" / "run").read_text()
    package = (ROOT / "tests" / "package_test.py").read_text()
    for command, test in RUN.items():
        if test == ".ci/run":
            assert command in ci
        elif test == "package_test.py":
            words = ", ".join(f'"{word}"' for word in command.split()[1:])
            assert f"installed({words})" in package
        else:
            assert callable(globals()[test])


@pytest.mark.parametrize("words", COMMANDS_OF_PAGES)
def test_the_words_of_a_command(words):
    """Those with L2L_PLUGINS are run, in part: test_the_examples_of_the_pages_work_together."""
    words = words[words[0].startswith("L2L_DATA=") :]
    if words[0] in ("seq", "openssl", "cp"):  # tests/docs/deletion_test.py runs them
        return
    if words[0] in ("pip", "jupytext", "jupyter", "L2L_PLUGINS=mine") or words == [
        "l2l-jax",
        "--help",
    ]:
        return
    if words[0] == "l2l-jax":
        module, rest = COMMANDS[words[1]][0], words[2:]
    elif words[:2] == ["python", "-m"]:
        module, rest = words[2], words[3:]
    else:
        script = ROOT / words[words[0] == "python"]
        assert script.exists(), script
        module, rest = "", words[1:]
    assert not module or importlib.util.find_spec(module), f"no module {module}"
    if "--config" in rest:
        spec = rest[rest.index("--config") + 1]
        path = str(ROOT / spec) if spec.startswith("configs/") else spec
        config = flags.with_names(cli.load_config(path), ["main", *rest])
        flags.check_keys(config, ["main", *rest], spec)
        if module == "l2l_jax.main":
            resolve(overridden(config, rest))
    if module.startswith("l2l_jax.") and module != "l2l_jax.main":
        text = options_of(module)
        for word in rest:
            if word.startswith("--") and not word.startswith("--config."):
                assert word.split("=")[0] in text, f"{module} has no option {word}"


def overridden(config, words):
    """The config with the values of --config.key=value."""
    for word in words:
        if word.startswith("--config."):
            key, value = word.removeprefix("--config.").split("=", 1)
            node, (*path, last) = config, key.split(".")
            for part in path:
                node = node[part]
            node[last] = cli.literal(value)
    return config


HELP: dict[str, str] = {}
SUBCOMMANDS = {
    "l2l_jax.weights": ("list", "import", "export", "push", "pull"),
    "l2l_jax.record": ("verify", "sign", "write", "purge"),
    "l2l_jax.benchmark": ((), "input"),
}


def options_of(module):
    """What --help of a module, or of its subcommands, prints."""
    if module not in HELP:
        subcommands = SUBCOMMANDS.get(module, ((),))
        HELP[module] = "".join(
            call(module, *([each] if each else []), "--help").stdout for each in subcommands
        )
    return HELP[module]


@pytest.mark.slow
def test_the_example_of_the_readme():
    (block,) = blocks(ROOT / "README.md", "python")
    done = subprocess.run([sys.executable, "-c", block], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["32", "(8,", "8)"], done.stderr


@pytest.mark.slow
def test_the_dry_run_of_the_grid(tmp_path):
    """Runs the unmarked command of docs/howto/compare.md."""
    (block,) = [b for b in blocks(DOCS / "howto/compare.md", "") if not b.startswith(NEEDS)]
    (words,) = lines(block)
    words = [sys.executable, *words[1:], "--out", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("l2l_jax.main") >= 3 * 5


@pytest.mark.slow
def test_the_examples_of_the_pages_work_together(mine):
    """One run with the model, data set, method and audit that the pages show."""
    words = ["--config", "mine/configs/patch_linear.py", "--workdir", "run",
             "--config.data.name=stripes", "--config.split.forget.classes=('down',)",
             "--config.unlearn.method=gradient_difference", "--config.unlearn.args.power=0.5",
             "--config.pretrain.steps=2", "--config.unlearn.steps=2",
             "--config.split.images_per_class=16", "--config.split.eval_images_per_class=8",
             "--config.audits=brightness_kept", "--config.runtime.tensorboard=False"]  # fmt: skip
    env = os.environ | {"L2L_PLUGINS": str(mine / "mine"), "PYTHONPATH": str(ROOT),
                        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # fmt: skip
    words = [sys.executable, "-m", "l2l_jax", "run", *words]
    done = subprocess.run(words, cwd=mine, env=env, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "how bright the images are" in (mine / "run" / "report.html").read_text()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=name_of)
def test_links_lead_to_files(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.M)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_named_files_exist(page):
    text = page.read_text()
    named = re.findall(r"`((?:l2l_jax|configs|launch|tests|docs)/[\w/.-]+)[`:]", text)
    for name in named:
        if "NAME" not in name and not name.startswith("docs/results/"):
            assert (ROOT / name).exists(), name
    assert "@@" not in text
    assert "TODO" not in text


def test_every_page_is_in_the_table_of_contents():
    text = (DOCS / "index.md").read_text()
    for page in PAGES[1:]:
        name = page.relative_to(DOCS).with_suffix("").as_posix()
        assert f"\n{name}\n" in text or name == "index", name


@pytest.mark.parametrize("kind", ["method", "solver"])
def test_methods_and_solvers_have_a_section_with_every_argument(kind):
    text = (DOCS / "methods.md").read_text()
    for name in names(kind):
        section = re.search(rf"^### {name}\n(.*?)(?=^##|\Z)", text, flags=re.DOTALL | re.M)
        assert section, f"docs/methods.md has no section {name}"
        assert f"(images/methods/{name}.svg)" in section[1]
        defaults = keyword_defaults(getattr(find(kind, name), FUNCTIONS[kind]))
        listed = ", ".join(f"`{k}={v!r}`" for k, v in defaults.items()).replace("'", '"')
        assert f"* **Arguments**: {listed or 'none'}.\n" in section[1]


def test_form_words_are_explained():
    from configs.common import METHODS, REBUILDS

    table = (DOCS / "methods.md").read_text().split("## Methods")[0]
    for word in (*METHODS, *REBUILDS):
        assert f"`{word}`" in table, word


@pytest.mark.parametrize(
    ("page", "kind"), [("models.md", "model"), ("data.md", "dataset"), ("audits.md", "audit")]
)
def test_tables_list_every_plugin(page, kind):
    text = (DOCS / page).read_text()
    for name in names(kind):
        assert f"\n| `{name}` |" in text, f"docs/{page} does not list {name}"


def test_the_table_of_official_files():
    files = r"`((?:mae_\w+_(?:base|full)|mage\S+|16_Network)\.pth|vqgan\S+\.ckpt)`"
    found = re.findall(files, (DOCS / "weights.md").read_text())
    assert len(found) > 5
    for name in found:
        assert name in MODEL_FILES or name == "mae_pretrain_vit_base.pth"


def test_drawings_are_those_of_the_script():
    spec = importlib.util.spec_from_file_location("drawings", ROOT / "launch" / "drawings.py")
    drawings = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawings)
    drawn = drawings.drawings()
    assert drawn.keys() == {*names("method"), *names("solver")}
    for name, svg in drawn.items():
        path = DOCS / "images" / "methods" / f"{name}.svg"
        assert path.read_text() == svg, "run python launch/drawings.py"


@pytest.mark.slow
def test_the_pages_build_without_warnings_and_outside_assets(tmp_path):
    pytest.importorskip("sphinx", reason="the extra [docs] is not installed")
    words = [sys.executable, "-m", "sphinx", "-q", "-W", DOCS, tmp_path / "html"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in (tmp_path / "html").rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|img|link)\b[^>]*?(?:src|href)=\"([^\"]+)", page.read_text()
        )
        assert not [url for url in loaded if url.startswith(("http", "//"))], page
    assert (tmp_path / "html" / "search.html").exists()
    reference = Path(tmp_path / "html" / "reference")
    for kind in ("method", "audit"):
        text = (reference / f"{kind}s.html").read_text()
        assert all(f"<h2>{name}<" in text for name in names(kind))
