"""The house rules of the code: who may import whom, how long things get, what is written down."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from l2l_jax.registry import FOLDERS
from tests.helpers import ROOT

PACKAGE = sorted((ROOT / "l2l_jax").rglob("*.py"))
SCRIPTS = sorted((ROOT / "configs").glob("*.py")) + sorted((ROOT / "launch").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
LOOP = ("l2l_jax/engine/train.py", "train")  # the one function that may be long

# The package from its top to its bottom: a part imports from itself and from the parts below it.
PARTS = ["main", "evaluate", "api", "weights.__main__", "flags", "engine", "report", "weights",
         "loaded", "PLUGINS", "registry", "workdir", "data", "lib", "types"]  # fmt: skip
ENGINE = ["run", "evaluation", "train", "preflight", "measure", "token_bank", "reuse", "retrained",
          "tokenizer", "completions", "networks", "outcome", "training_sets", "experiment", "step",
          "plan", "config"]  # fmt: skip
PLUGINS = sorted(folder for folder in FOLDERS.values() if "." not in folder)
SHARED = {"models.layers"}  # what several plug-ins of a folder are made from
EXCEPTIONS = {("models.mage", "models.vqgan")}  # a MAGE holds a VQ-GAN
WITHOUT_JAX = ("report.", "workdir.layout", "lib.files", "lib.errors", "lib.cli", "lib.signatures")


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def imports_of(path):
    """Absolute names of what a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def ours(path):
    """What it imports of this package, without the package's name: "lib.trees.digest"."""
    for name in imports_of(path):
        if name.startswith("l2l_jax."):
            yield name.removeprefix("l2l_jax.")


def part_of(module):
    """Which of PARTS a dotted module name (or a name in a module) belongs to."""
    first = module.split(".")[0]
    if module.startswith("weights.__main__"):
        return "weights.__main__"
    return "PLUGINS" if first in PLUGINS else first


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_imports_go_down(path):
    module = ".".join(path.relative_to(ROOT / "l2l_jax").with_suffix("").parts)
    if path.name == "__init__.py":
        return
    here = PARTS.index(part_of(module))
    for name in ours(path):
        there = PARTS.index(part_of(name))
        assert here <= there, f"{module} imports upwards: {name}"
        if PARTS[here] == "PLUGINS":
            folder = module.split(".")[0]
            beside = name.startswith(
                tuple(f"{each}." for each in SHARED if each.split(".")[0] == folder)
            )
            listed = any(module == a and name.startswith(b) for a, b in EXCEPTIONS)
            below = PARTS[there] in ("data", "lib", "types")
            assert below or beside or listed, f"{module} may import lib, data or types, not {name}"
        elif PARTS[there] == "PLUGINS":
            assert module.startswith("weights.formats."), f"{module} reaches {name} through find()"
        if PARTS[here] == PARTS[there] == "engine" and module != name.rpartition(".")[0]:
            mine, other = (ENGINE.index(each.split(".")[1]) for each in (module, name))
            assert mine <= other, f"{module} imports upwards: {name}"
        if PARTS[here] == "report":
            allowed = (
                "report",
                "workdir.layout",
                "lib.config_dicts",
                "lib.files",
                "lib.errors",
                "lib.cli",
                "lib.signatures",
            )
            assert name.startswith(allowed), f"{module} reads run folders without JAX, not {name}"


def test_every_module_has_a_part():
    modules = (p.relative_to(ROOT / "l2l_jax").with_suffix("").parts for p in PACKAGE)
    assert {part_of(".".join(parts)) for parts in modules} - {"__init__"} <= set(PARTS)


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_tensorflow_and_torch_stay_out(path):
    heavy = {"tensorflow", "tensorboard", "clu", "torch", "keras"}
    found = {name.split(".")[0] for name in imports_of(path)} & heavy
    allowed = {"clu"} if name_of(path) == "l2l_jax/workdir/metrics.py" else set()
    assert found <= allowed


def test_the_report_needs_no_jax():
    code = "import sys, l2l_jax.report.__main__; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=name_of)
def test_configs_are_plain_values(path):
    known = (
        {"typing.Any", "l2l_jax.engine.config", "l2l_jax.registry.names"}
        if path.stem == "common"
        else set()
    )
    assert set(imports_of(path)) <= {"ml_collections", "configs.common", *known}


def functions(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", PACKAGE + SCRIPTS, ids=name_of)
def test_sizes_types_and_docstrings(path):
    text = path.read_text()
    if path.name != "__init__.py":
        assert ast.get_docstring(ast.parse(text)), "a file opens with what it is"
    limit = 480 if path.name == "types.py" else 400  # every contract in one place
    assert len(text.splitlines()) <= limit, "one subject in a file"
    if "lib" in path.parts:
        assert len(text.splitlines()) <= 200, "lib is small and boring"
    for function in functions(path):
        length = function.end_lineno - function.lineno + 1
        limit = 100 if (name_of(path), function.name) == LOOP else 60
        assert length <= limit, f"{function.name} has {length} lines"
        if function.name.startswith("_"):
            continue
        arguments = [*function.args.args, *function.args.kwonlyargs, *function.args.posonlyargs]
        bare = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
        assert not bare, f"{function.name} has untyped arguments {bare}"


def test_the_median_file_is_short():
    lengths = sorted(len(p.read_text().splitlines()) for p in PACKAGE if p.name != "__init__.py")
    assert lengths[len(lengths) // 2] <= 150


def test_tests_weigh_at_least_half_of_the_source():
    source, tests = (sum(len(p.read_text().splitlines()) for p in ps) for ps in (PACKAGE, TESTS))
    assert tests >= source / 2


def test_top_level():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    top = {line.split("/")[0] for line in listed.splitlines()}
    agreed = {"README.md", "setup.cfg", "pyproject.toml", "LICENSE", "l2l_jax", "configs", "launch",
              "tests", "docs", ".ci", ".gitignore", ".pre-commit-config.yaml", "CONTRIBUTING.md",
              "CHANGELOG.md", "CITATION.cff"}  # fmt: skip
    assert top <= agreed


def test_fixtures_and_bundles_stay_small():
    def megabytes(folder):
        return sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file()) / 1e6

    assert megabytes(ROOT / "tests" / "fixtures") < 12
    assert megabytes(ROOT / "l2l_jax" / "datasets" / "bundled") < 8
    weights = ROOT / "l2l_jax/weights/bundled"
    assert (weights / "mae_fashion_mnist.safetensors").stat().st_size < 4e6
    assert (weights / "diffusion_fashion_mnist.safetensors").stat().st_size < 8e6


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=lambda c: c[0])
def test_ruff_has_nothing_to_say(command):
    folders = ["l2l_jax", "configs", "launch", "tests"]
    words = [sys.executable, "-m", "ruff", *command, *folders]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
