"""The README is true: its commands exist and run, its files are there, its figures are a run's."""

import re
import shlex

import pytest

from l2l_jax.lib import cli
from l2l_jax.registry import FOLDERS, find, names
from l2l_jax.weights.published import MODEL_FILES
from tests.helpers import ROOT, call

README = (ROOT / "README.md").read_text()


def commands():
    """Every line of its code blocks that starts a program, continued lines joined."""
    for block in re.findall(r"```\n(.*?)```", README, flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def test_it_opens_with_the_two_commands():
    first, second = list(commands())[:2]
    assert first == ["launch/demo.sh"]
    assert second == ["launch/test.sh"]
    assert (ROOT / ".ci" / "run").read_text().count("launch/test.sh") == 1


@pytest.mark.parametrize("words", [w for w in commands() if w[0] == "python"], ids=" ".join)
def test_python_commands_name_what_exists(words):
    if words[1] == "-m":
        assert find_module(words[2]), f"no module {words[2]}"
    else:
        assert (ROOT / words[1]).exists(), f"no script {words[1]}"
    if "--config" in words:
        config = cli.load_config(str(ROOT / words[words.index("--config") + 1]))
        for word in words:
            if word.startswith("--config."):
                node, (*path, key) = config, word[len("--config.") :].split("=")[0].split(".")
                for part in path:
                    node = node[part]
                assert key in node, word


def find_module(name):
    return (ROOT / (name.replace(".", "/") + ".py")).exists() or (
        ROOT / name.replace(".", "/") / "__main__.py"
    ).exists()


def test_scripts_run(tmp_path):
    done = call("l2l_jax.weights", "list")
    assert done.returncode == 0
    assert "mae_visualize_vit_base.pth" in done.stdout
    for script in ("demo.sh", "test.sh"):
        path = ROOT / "launch" / script
        assert path.stat().st_mode & 0o111, f"{script} can be started"


def test_files_it_names_exist():
    named = re.findall(r"`((?:l2l_jax|configs|launch|tests|methods|models)/[\w/.]+)[`:]", README)
    named += re.findall(r"\]\(([\w/.]+)\)", README)
    assert named
    for name in named:
        if "NAME" not in name:
            inside = (
                ROOT / "l2l_jax" / name if name.startswith(("methods/", "models/")) else ROOT / name
            )
            assert inside.exists(), name


def test_every_kind_of_thing_is_in_the_table_of_additions():
    for kind, folder in FOLDERS.items():
        assert f"`l2l_jax/{folder.replace('.', '/')}/NAME.py`" in README, kind
        for name in names(kind):
            find(kind, name)


def test_official_files_are_those_the_code_knows():
    files = r"`((?:mae_\w+_(?:base|full)|mage\S+|16_Network)\.pth|vqgan\S+\.ckpt)`"
    for name in re.findall(files, README):
        whole = name in MODEL_FILES
        assert whole or name == "mae_pretrain_vit_base.pth"


def test_nothing_is_left_to_fill_in():
    assert "@@" not in README
    assert "TODO" not in README
