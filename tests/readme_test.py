"""README.md, CONTRIBUTING.md, CITATION.cff. tests/docs_test.py checks README.md as a page, too."""

import dataclasses
import importlib.util
import re
import shlex

import jax
import jax.numpy as jnp
import pytest

import l2l_jax
from l2l_jax.registry import CONTENTS, FOLDERS, find, names, read
from l2l_jax.types import Batch, UnlearnBatch
from tests.helpers import ROOT, call, small_model

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
README = (ROOT / "README.md").read_text()


def commands():
    """Yields the words of every command in the code blocks of README.md."""
    for block in re.findall(r"```\n(.*?)```", README, flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def test_readme_is_short():
    assert len(README.encode()) <= 10_000


def test_readme_begins_with_the_two_commands():
    first, second = list(commands())[:2]
    assert first == ["launch/demo.sh"]
    assert second == ["launch/test.sh"]
    assert (ROOT / ".ci" / "run").read_text().count("launch/test.sh") == 1


@pytest.mark.slow
def test_scripts_run(tmp_path):
    done = call("l2l_jax.weights", "list")
    assert done.returncode == 0
    assert "mae_visualize_vit_base.pth" in done.stdout
    for script in ("demo.sh", "test.sh"):
        path = ROOT / "launch" / script
        assert path.stat().st_mode & 0o111, f"{script} is executable"


def test_every_kind_of_plugin_is_in_the_table_of_additions():
    for kind, folder in FOLDERS.items():
        assert f"`l2l_jax/{folder.replace('.', '/')}/NAME.py`" in CONTRIBUTING, kind
        for name in names(kind):
            find(kind, name)


@pytest.mark.slow
def test_the_example_method_works(tmp_path):
    """The method of CONTRIBUTING.md is a valid plug-in and returns finite objectives."""
    path = tmp_path / "gradient_difference.py"
    path.write_text(re.search(r"```python\n(.*?)```", CONTRIBUTING, flags=re.DOTALL)[1])
    spec = importlib.util.spec_from_file_location("gradient_difference", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    method = read("method", module)
    model = small_model("autoencoder")
    params = model.init(jax.random.key(0))
    mask = jnp.zeros((2, *model.grid), bool).at[:, 0].set(True)
    side = Batch(jnp.zeros((2, model.image_size, model.image_size, 3)), mask)
    both = UnlearnBatch(side, side)
    retain, forget, metrics = method.objectives(model, params, {}, both, jax.random.key(1))
    assert retain > 0 > forget
    assert metrics == {}


@pytest.mark.parametrize("kind", FOLDERS)
def test_contributing_lists_what_a_plugin_contains(kind):
    """Required and optional contents in the table are the fields of the dataclass of each kind."""
    content = CONTENTS[kind]
    (row,) = [
        line for line in CONTRIBUTING.splitlines() if line.endswith(f"`{content.__name__}` |")
    ]
    *_, file, required, optional, _, _ = row.split("|")
    assert f"`l2l_jax/{FOLDERS[kind].replace('.', '/')}/NAME.py`" in file
    fields = {field.name: field for field in dataclasses.fields(content) if field.name != "name"}
    missing = dataclasses.MISSING
    needed = {k for k, f in fields.items() if f.default is f.default_factory is missing}
    named = [set(re.findall(r"`(\w+)[`(]", cell)) & fields.keys() for cell in (required, optional)]
    assert named == [needed, fields.keys() - needed]


def test_the_citation_has_this_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {l2l_jax.__version__}\n" in citation
