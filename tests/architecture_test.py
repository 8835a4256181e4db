"""The rules of the code: which module may import which, sizes, types, docstrings, file sizes."""

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
LOOP = ("l2l_jax/engine/train.py", "train")  # the only function with a higher length limit

# The layers of the package from top to bottom: a layer imports from itself and from lower layers.
PARTS = ["__main__", "commands", "main", "evaluate", "audit", "benchmark", "demo", "api", "explore",
         "weights.__main__", "record.__main__", "flags", "requests", "processes", "engine",
         "record", "report", "weights", "loaded", "stored", "PLUGINS", "registry", "workdir",
         "data", "lib", "types", "audit_types", "model_types", "bounds"]  # fmt: skip
ENGINE = ["rerun", "run", "purge", "answers", "copies", "auditing", "evaluation", "subject",
          "train", "preflight", "fitting", "audit_sets", "cost", "measure", "certificate", "unseen",
          "token_bank", "reuse", "retrained", "tokenizer", "by_class", "completions", "judging",
          "evaluated",
          "networks", "outcome", "boundaries", "provenance", "training_sets", "experiment", "step",
          "plan", "complete", "config"]  # fmt: skip
PLUGINS = sorted(folder for folder in FOLDERS.values() if "." not in folder)
SHARED = {"models.layers"}  # building blocks that several plug-ins of a folder use
EXCEPTIONS = {("models.mage", "models.vqgan")}  # a MAGE contains a VQ-GAN


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def imports_of(path):
    """Yields the absolute names of everything that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def package_imports(path):
    """Yields what a file imports from l2l_jax, without the prefix: "lib.trees.digest"."""
    for name in imports_of(path):
        if name.startswith("l2l_jax."):
            yield name.removeprefix("l2l_jax.")


def part_of(module):
    """Returns the part in PARTS that a dotted name of a module, or of a name in it, belongs to."""
    first = module.split(".")[0]
    for command in ("weights.__main__", "record.__main__"):
        if module.startswith(command):
            return command
    return "PLUGINS" if first in PLUGINS else first


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_imports_go_down(path):
    module = ".".join(path.relative_to(ROOT / "l2l_jax").with_suffix("").parts)
    if path.name == "__init__.py":
        return
    importer = PARTS.index(part_of(module))
    for name in package_imports(path):
        imported = PARTS.index(part_of(name))
        assert importer <= imported, f"{module} imports upwards: {name}"
        if PARTS[importer] == "PLUGINS":
            folder = module.split(".")[0]
            is_shared = name.startswith(
                tuple(f"{each}." for each in SHARED if each.split(".")[0] == folder)
            )
            is_excepted = any(module == a and name.startswith(b) for a, b in EXCEPTIONS)
            is_lower = PARTS[imported] in ("data", "lib", "types")
            assert is_lower or is_shared or is_excepted, (
                f"{module} may import lib, data or types, not {name}"
            )
        elif PARTS[imported] == "PLUGINS":
            assert module.startswith("weights.formats."), f"{module} must get {name} through find()"
        if PARTS[importer] == PARTS[imported] == "engine" and module != name.rpartition(".")[0]:
            upper, lower = (ENGINE.index(each.split(".")[1]) for each in (module, name))
            assert upper <= lower, f"{module} imports upwards: {name}"
        if PARTS[importer] == "report":
            allowed = (
                "report",
                "workdir.layout",
                "lib.config_dicts",
                "lib.bounded",
                "lib.files",
                "lib.text",
                "lib.errors",
                "lib.cli",
                "lib.signatures",
            )
            assert name.startswith(allowed), (
                f"{module} must work without JAX and may not import {name}"
            )


def test_every_module_has_a_part():
    modules = (p.relative_to(ROOT / "l2l_jax").with_suffix("").parts for p in PACKAGE)
    assert {part_of(".".join(parts)) for parts in modules} - {"__init__"} <= set(PARTS)


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_tensorflow_and_torch_stay_out(path):
    heavy = {"tensorflow", "tensorboard", "clu", "torch", "keras"}
    imported = {name.split(".")[0] for name in imports_of(path)} & heavy
    writes_events = name_of(path) == "l2l_jax/workdir/metrics.py"
    allowed = {"clu", "tensorboard"} if writes_events else set()
    assert imported <= allowed


def test_the_report_and_the_record_need_no_jax():
    modules = "l2l_jax.report.__main__, l2l_jax.record.__main__"
    code = f"import sys, {modules}; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=name_of)
def test_configs_are_plain_values(path):
    shared = {"typing.Any", "l2l_jax.engine.config"}
    known = {
        "common": shared | {"l2l_jax.registry.names", "configs.classes", "configs.recipes"},
        "recipes": shared | {"collections.abc.Callable"},
    }.get(path.stem, {"configs.common"})
    found = {
        ".".join(name.split(".")[:2]) if name.startswith("configs.") else name
        for name in imports_of(path)
    }
    assert found <= {"ml_collections", *known}


def functions(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", PACKAGE + SCRIPTS, ids=name_of)
def test_sizes_types_and_docstrings(path):
    text = path.read_text()
    if path.name != "__init__.py":
        assert ast.get_docstring(ast.parse(text)), "a file begins with a docstring"
    assert len(text.splitlines()) <= 400, "the file is too long"
    if "lib" in path.parts:
        assert len(text.splitlines()) <= 200, "files of lib have at most 200 lines"
    for function in functions(path):
        length = function.end_lineno - function.lineno + 1
        limit = 100 if (name_of(path), function.name) == LOOP else 60
        assert length <= limit, f"{function.name} has {length} lines"
        if function.name.startswith("_"):
            continue
        arguments = [*function.args.args, *function.args.kwonlyargs, *function.args.posonlyargs]
        untyped = [
            a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")
        ]
        assert not untyped, f"{function.name} has untyped arguments {untyped}"


def test_the_median_file_is_short():
    lengths = sorted(len(p.read_text().splitlines()) for p in PACKAGE if p.name != "__init__.py")
    assert lengths[len(lengths) // 2] <= 150


def test_tests_have_at_least_half_as_many_lines_as_the_source():
    source, tests = (sum(len(p.read_text().splitlines()) for p in ps) for ps in (PACKAGE, TESTS))
    assert tests >= source / 2


def test_top_level():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    top = {line.split("/")[0] for line in listed.splitlines()}
    allowed = {"README.md", "setup.cfg", "setup.py", "pyproject.toml", "LICENSE", "l2l_jax",
               "configs", "launch", "tests", "docs", ".ci", ".github", ".gitignore",
               ".pre-commit-config.yaml", "CONTRIBUTING.md", "CHANGELOG.md",
               "CITATION.cff"}  # fmt: skip
    assert top <= allowed


def test_fixtures_and_bundles_stay_small():
    def megabytes(folder):
        return sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file()) / 1e6

    assert megabytes(ROOT / "tests" / "fixtures") < 12
    assert megabytes(ROOT / "l2l_jax" / "datasets" / "bundled") < 8
    weights = ROOT / "l2l_jax/weights/bundled"
    assert (weights / "mae_fashion_mnist.safetensors").stat().st_size < 4e6
    assert (weights / "diffusion_fashion_mnist.safetensors").stat().st_size < 8e6


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=lambda c: c[0])
def test_ruff_reports_nothing(command):
    folders = ["l2l_jax", "configs", "launch", "tests"]
    words = [sys.executable, "-m", "ruff", *command, *folders]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
