"""The house rules of the code: who may import whom, how long things get, what is written down."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from l2l_jax.find import FOLDERS
from tests.helpers import ROOT

PACKAGE = sorted((ROOT / "l2l_jax").rglob("*.py"))
SCRIPTS = sorted((ROOT / "configs").glob("*.py")) + sorted((ROOT / "launch").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
LOOP = ("l2l_jax/train.py", "train")  # the one function that may be long

# A layer imports from itself and from the ones below; `leaf` layers not even from themselves.
LAYERS = ["main", "run", "flags", "train", "evaluate", "prepare", "weights", "survey", "tokens",
          "reference", "adopt", "judge", "experiment",
          "schema", "step", "originals", "find"]  # fmt: skip
LEAVES = sorted(set(FOLDERS.values()))
BASE = ["lib", "types"]
EXCEPTIONS = {
    ("models.mage", "models.vqgan"),
    ("models.mage", "models._mage_files"),
    ("models._mage_files", "models.vqgan"),
    ("models.diffusion", "models._diffusion_files"),
}


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


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_imports_go_down(path):
    parts = path.relative_to(ROOT / "l2l_jax").with_suffix("").parts
    layer, module = parts[0], ".".join(parts)
    for name in ours(path):
        target = name.split(".")[0]
        if layer in BASE:
            assert target in BASE, f"{module} is the bottom; it cannot know {name}"
        elif layer in LEAVES:
            shared = name.startswith(f"{layer}.layers.")
            listed = any(module == a and name.startswith(b) for a, b in EXCEPTIONS)
            allowed = target in BASE or shared or listed
            assert allowed, f"{module} imports its sibling or a layer above: {name}"
        elif layer == "report":
            assert target in ("report", "lib"), f"{module} reads run folders, not {name}"
        elif layer in LAYERS:
            allowed = LAYERS[LAYERS.index(layer) + 1 :] + LEAVES + BASE + ["report"]
            direct = target in LEAVES
            assert target in allowed, f"{module} imports upwards: {name}"
            assert not direct, f"{module} should reach {name} through find()"


def test_every_module_has_a_layer():
    known = {*LAYERS, *LEAVES, *BASE, "report", "__init__"}
    assert {p.relative_to(ROOT / "l2l_jax").with_suffix("").parts[0] for p in PACKAGE} <= known


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_tensorflow_and_torch_stay_out(path):
    heavy = {"tensorflow", "tensorboard", "clu", "torch", "keras"}
    found = {name.split(".")[0] for name in imports_of(path)} & heavy
    allowed = {"clu"} if name_of(path) == "l2l_jax/lib/writers.py" else set()
    assert found <= allowed


def test_the_report_needs_no_jax():
    code = "import sys, l2l_jax.report.__main__; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=name_of)
def test_configs_are_plain_values(path):
    assert set(imports_of(path)) <= {"ml_collections", "configs.common"}


def functions(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", PACKAGE + SCRIPTS, ids=name_of)
def test_sizes_types_and_docstrings(path):
    text = path.read_text()
    if path.name != "__init__.py":
        assert ast.get_docstring(ast.parse(text)), "a file opens with what it is"
    assert len(text.splitlines()) <= 400, "one subject in a file"
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
              "tests", ".ci", ".gitignore"}  # fmt: skip
    assert top <= agreed


def test_fixtures_and_bundles_stay_small():
    def megabytes(folder):
        return sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file()) / 1e6

    assert megabytes(ROOT / "tests" / "fixtures") < 12
    assert megabytes(ROOT / "l2l_jax" / "data" / "bundled") < 8
    weights = ROOT / "l2l_jax/models/bundled"
    assert (weights / "mae_fashion_mnist.safetensors").stat().st_size < 4e6
    assert (weights / "diffusion_fashion_mnist.safetensors").stat().st_size < 8e6


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=lambda c: c[0])
def test_ruff_has_nothing_to_say(command):
    folders = ["l2l_jax", "configs", "launch", "tests"]
    words = [sys.executable, "-m", "ruff", *command, *folders]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
