"""Overriding a config on the command line: any key; names of plug-ins before their arguments."""

import re

import pytest

from l2l_jax import flags
from l2l_jax.lib import cli, files
from l2l_jax.lib.errors import ConfigError
from tests.helpers import ROOT, call, small_config


def test_the_config_is_taken_from_the_arguments():
    for words in (["--config", "a.py:x"], ["--config=a.py:x"]):
        spec, rest = flags.split(["main", "--workdir", "w", *words, "--config.seed=1"])
        assert spec == "a.py:x"
        assert rest == ["main", "--workdir", "w", "--config.seed=1"]
    with pytest.raises(ConfigError, match=r"is missing.*fashion_mnist.*configs/folder\.py"):
        flags.split(["main", "--workdir", "w"])


def test_the_config_has_every_argument_of_every_plugin():
    config = flags.with_names(small_config(), ["main"])
    assert config["model"]["args"]["scan"] is False
    assert config["unlearn"]["args"]["noise"] == "gaussian_like"
    assert "perplexity" in config["evaluators"]["tsne"]


def test_another_name_replaces_the_arguments():
    config = small_config()
    config.unlearn.args = dict(noise="standard")
    config = flags.with_names(config, ["main", "--config.unlearn.method=finetune"])
    assert config["unlearn"]["method"] == "finetune"
    assert "noise" not in config["unlearn"]["args"]
    config = small_config()
    config.unlearn.args = dict(noise="standard")
    config = flags.with_names(config, ["main", "--config.unlearn.method=l2l"])
    assert config["unlearn"]["args"]["noise"] == "standard", "the same name keeps the arguments"


def test_a_task_can_be_replaced():
    config = flags.with_names(small_config(), ["main", "--config.tasks.center.task=side"])
    assert config["tasks"]["center"]["args"] == dict(cells=1, edge="right", finer=1)
    with pytest.raises(ConfigError, match=r"given with '=': --config\.unlearn\.method=NAME"):
        flags.with_names(small_config(), ["main", "--config.unlearn.method", "finetune"])


@pytest.mark.parametrize("word", ["--config.unlearn.stpes=1", "--noconfig.data.flipp"])
def test_a_key_that_does_not_exist(word):
    config = flags.with_names(small_config(), ["main"])
    with pytest.raises(ConfigError, match=r"c\.py has no such key\. Did you mean '"):
        flags.check_keys(config, ["main", word], "c.py")


def test_overrides_of_a_phase_that_the_run_does_not_have():
    config = flags.with_names(small_config(), ["main"]) | {"phases": ("pretrain",)}
    words = [
        "--config.unlearn.steps=5",
        "--config.pretrain.steps=5",
        "--workdir=x",
        "--config=y",
        "--config.seed=1",
    ]
    assert flags.unused(config, words) == words[:1]
    assert flags.unused(config | {"phases": ("pretrain", "unlearn")}, words) == []
    assert "no such phase. Its phases are pretrain." in flags.unused_message(words[:1], config)


@pytest.mark.slow
def test_overrides_arrive_in_the_run(tmp_path):
    words = ["--config.unlearn.method=finetune", "--config.unlearn.steps=1", "--config.seed=4",
             "--config.model.args.scan=True", "--config.phases=('pretrain','unlearn')",
             "--config.evaluators.tsne.points=6", "--config.runtime.tensorboard=True"]  # fmt: skip
    absent = tmp_path / "first" / "tensorflow.py"  # as if the extra [tensorboard] were missing
    absent.parent.mkdir()
    absent.write_text("raise ModuleNotFoundError(\"No module named 'tensorflow'\")")
    done = call("l2l_jax.main", "--config", "tests/configs/small.py", "--workdir", tmp_path / "run",
                *words, PYTHONPATH=f"{absent.parent}:{ROOT}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = files.read_json(tmp_path / "run" / "config.json")
    assert config["unlearn"]["method"] == "finetune"
    assert config["unlearn"]["steps"] == 1
    assert config["seed"] == 4
    assert config["model"]["args"]["scan"] is True
    assert config["evaluators"]["tsne"]["points"] == 6
    assert list((tmp_path / "run" / "tensorboard").rglob("events*")), "without TensorFlow"
    others = [line for line in done.stderr.splitlines() if not re.match(r"\d\d:\d\d:\d\d ", line)]
    assert others == [], "only this package's own lines reach the user"


@pytest.mark.slow
def test_help_lists_the_keys():
    done = call("l2l_jax.main", "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: python -m l2l_jax.main --config CONFIG[:FORM]")
    for key in ("seed", "PHASE.optimizer.lr", "split.forget.classes", "tasks.NAME.args"):
        assert f"--config.{key}=" in done.stdout
    assert "share of the parameters that move" in done.stdout


@pytest.mark.parametrize("words", [["--config", "mae_imagenet:large"], ["--config=mae_imagenet"]])
def test_the_help_of_a_config_lists_its_forms(words):
    text = flags.config_help(["main", *words, "--help"])
    assert "mae_imagenet.py\n\nForgets 100 ImageNet classes" in text
    assert "--config mae_imagenet:large,random" in text
    assert "All form words: base, large, huge, released" in text
    assert flags.config_help(["main", "--help"]) == ""


@pytest.mark.slow
def test_a_run_without_a_workdir_is_refused():
    done = call("l2l_jax.main", "--config", "tests/configs/small.py")
    assert done.returncode == 2
    assert done.stderr.endswith(
        "error: --workdir FOLDER is missing: where everything goes, such as runs/demo.\n"
    )


@pytest.mark.slow
def test_an_override_of_an_unused_phase_is_refused(tmp_path):
    words = ("--config", "configs/fashion_mnist.py:pretrain", "--workdir", tmp_path / "run")
    done = call("l2l_jax.main", *words, "--config.unlearn.steps=7")
    assert done.returncode == 2
    assert "--config.unlearn.steps=7: this run has no such phase" in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "bad.py is no config: it has no function get_config"),
        ("x = (\n", r"bad.py, line 1: SyntaxError: .* Correct the config file"),
        ("import nothing_at_all\n", "bad.py, line 1: ModuleNotFoundError: No module named"),
        (
            "def get_config():\n    return None.phases\n",
            "bad.py, line 2: AttributeError: 'NoneType'",
        ),
        ("def get_config(form):\n    return 1\n", "bad.py: TypeError: .*'form'"),
        ("\0", "bad.py"),
        ("def get_config():\n    pass\n", "get_config returns None, which is no config"),
    ],
)
def test_a_mistake_in_a_config_file_is_named_with_its_line(text, message, tmp_path):
    path = tmp_path / "configs" / "bad.py"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        cli.load_config(str(path))


def test_audits_are_named_on_the_command_line():
    assert flags.with_audits("--config.audits=quick,probe") == "--config.audits=('quick', 'probe')"
    assert flags.with_audits("--config.audits=('all',)") == "--config.audits=('all',)"
    assert flags.with_audits("--config.seed=1") == "--config.seed=1"
    words = ["main", "--config.audit.args.relearn.steps=(0, 3)", "--config.audit.args.relearn.no=1"]
    completed = flags.with_names(small_config(), words)
    assert completed["audit"]["args"] == {"relearn": {"steps": (0, 5, 10, 20, 40)}}, (
        "an argument that is overridden is a key; others keep the defaults of their group"
    )
    with pytest.raises(ConfigError, match="No audit called 'relern'"):
        flags.with_names(small_config(), ["main", "--config.audit.args.relern.steps=(0, 3)"])
