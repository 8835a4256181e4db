"""The wheel works without the checkout: commands, configs by name, bundled data and weights."""

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile

import pytest

from l2l_jax import commands
from l2l_jax.lib import cli, config_files
from l2l_jax.lib.errors import ConfigError
from tests.helpers import ROOT

FILES = ("l2l_jax", "configs", "setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
LATER = ("demo", "record")  # subcommands whose module may not exist


def test_a_subcommand_without_a_module_is_not_listed(monkeypatch):
    monkeypatch.setitem(commands.COMMANDS, "nothing", ("l2l_jax.nothing", "does nothing"))
    assert "nothing" not in commands.usage()
    assert commands.available().keys() >= commands.COMMANDS.keys() - {"nothing", *LATER}


@pytest.mark.parametrize(("words", "code"), [(["evalaute"], 2), (["--config", "x"], 2)])
def test_an_unknown_subcommand(words, code, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["l2l-jax", *words])
    with pytest.raises(SystemExit) as ended:
        commands.main()
    assert ended.value.code == code
    assert "Commands: run, evaluate, audit" in capsys.readouterr().err


def test_a_config_has_a_name():
    assert cli.load_config("mae_imagenet:large").model.args.size == "large"
    assert config_files.names() == [
        p.stem for p in sorted((ROOT / "configs").glob("*.py")) if "get_config" in p.read_text()
    ]
    with pytest.raises(ConfigError, match=r"no config mae_imagnet\. Did you mean 'mae_imagenet'"):
        cli.load_config("mae_imagnet")
    with pytest.raises(ConfigError, match="Did you mean 'mae_imagenet'"):
        cli.load_config("somewhere/mae_imagenet.py")


def test_a_file_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").write_text("def get_config():\n    return dict(mine=True)\n")
    assert cli.load_config("folder") == {"mine": True}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy so that no earlier build is in it."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in FILES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    words = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*words, "-w", target, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A function that runs `l2l-jax` of a fresh environment in an empty folder.

    The environment has only the wheel; the packages it requires are those of this Python.
    """
    home, folder = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("empty")
    venv.create(home, symlinks=True)
    (packages,) = home.glob("lib/python*/site-packages")
    words = [sys.executable, "-m", "pip", "--python", home / "bin" / "python", "install", "-q"]
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "L2L_PLUGINS")}
    words = [*words, "--no-deps", wheel]
    done = subprocess.run(words, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    others = dict.fromkeys(p for p in sys.path if p.endswith("site-packages"))
    (packages / "others.pth").write_text("\n".join(others))

    def run(*words):
        env = clean | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # compiles faster
        words = [home / "bin" / "l2l-jax", *words]
        return subprocess.run(
            words, cwd=folder, env=env, capture_output=True, text=True, timeout=1200
        )

    run.folder = folder
    return run


@pytest.mark.slow
def test_the_wheel_holds_all_files(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    kept = {p.relative_to(ROOT) for p in (ROOT / "l2l_jax").rglob("*") if p.is_file()}
    kept = {p.as_posix() for p in kept if "__pycache__" not in p.parts}
    assert kept <= inside
    configs = {f"l2l_jax/bundled/configs/{p.name}" for p in (ROOT / "configs").glob("*.py")}
    assert configs <= inside


@pytest.mark.slow
def test_every_command_helps(installed):
    listed = re.findall(r"^  (\w+) ", installed("--help").stdout, re.M)
    assert listed == list(commands.available())
    for name in listed:
        done = installed(name, "--help")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"usage: l2l-jax {name}")
    assert "bundled:mae_fashion_mnist" in installed("weights", "list").stdout


TINY = (
    "--config.pretrain.steps=1",
    "--config.pretrain.batch_size=8",
    "--config.unlearn.steps=1",
    "--config.unlearn.batch_size=8",
    "--config.split.images_per_class=8",
    "--config.split.eval_images_per_class=4",
    "--config.evaluate.tasks=('center',)",
    "--config.networks.main.args.epochs=1",
    "--config.runtime.tensorboard=False",
)


@pytest.mark.slow
def test_a_run_by_the_name_of_its_config(installed):
    """It reads the bundled data."""
    words = ("--config", "autoencoder_cifar10:bundled", "--workdir", "runs/tiny")
    done = installed("run", *words, *TINY)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (installed.folder / "runs/tiny/report.html").stat().st_size > 10_000
    again = installed("report", "runs/tiny", "--markdown")
    assert again.returncode == 0, again.stderr
    assert "\n| l2l | 1 |" in again.stdout
