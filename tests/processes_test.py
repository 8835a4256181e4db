"""--distributed, --join-timeout and --require: what is refused before a run begins."""

import importlib.metadata

import jax
import pytest

from l2l_jax import flags, processes
from l2l_jax.lib.errors import ConfigError
from tests.helpers import call


def test_an_address():
    assert processes.parse("node1:12321,4,3") == processes.Address("node1:12321", 4, 3)
    assert processes.parse("[::1]:80,1,0") == processes.Address("[::1]:80", 1, 0)
    assert processes.parse("auto") is processes.parse("") is None


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("node1", "it is 'node1'"),
        ("node1:80,2", "it is 'node1:80,2'"),
        ("node1,2,0", "it is 'node1,2,0'"),
        ("node1:80,two,0", "it is"),
        ("http://node1:80,2,0", "it is"),
        ("node1:0,2,0", "the port 0 is not between"),
        ("node1:70000,2,0", "the port 70000 is not between"),
        ("node1:80,2,2", "of 2 processes the ranks are 0 to 1, not 2"),
        ("node1:80,0,0", "of 0 processes the ranks are none"),
    ],
)
def test_a_wrong_address_is_refused(spec, says):
    with pytest.raises(ConfigError, match="'auto' or HOST:PORT,COUNT,RANK") as error:
        processes.begin(spec, 300, "")
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("timeout", "require", "says"),
    [(0, "", "--join-timeout=0 is not"), (1e6, "", "join-timeout"), (9, "TPU", "not 'TPU'")],
)
def test_wrong_values_are_refused(timeout, require, says):
    with pytest.raises(ConfigError, match=says):
        processes.begin("", timeout, require)


def test_a_part_of_the_variables_of_slurm_is_refused(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    monkeypatch.setenv("SLURM_STEP_NODELIST", "n1")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    with pytest.raises(ConfigError, match="Slurm job 7, but SLURM_PROCID is not set: start the"):
        processes.begin("auto", 300, "")


def test_auto_without_a_cluster_is_refused(monkeypatch):
    def initialize(**_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    for name in ("delay_lines", "catch"):
        monkeypatch.setattr(processes.aborts, name, lambda *_: None)
    monkeypatch.setattr(processes.cli, "start_logging", lambda: None)
    with pytest.raises(ConfigError, match="finds no cluster here"):
        processes.begin("auto", 300, "")


@pytest.mark.parametrize(
    ("kind", "asked", "installed", "require", "says"),
    [
        ("cpu", None, "jax-cuda13-plugin", "", "jax-cuda13-plugin is installed, and JAX finds no"),
        ("cpu", None, "libtpu", "", "JAX finds no tpu"),
        ("cpu", None, "libtpu", "cpu", ""),
        ("cpu", "cpu", "libtpu", "", ""),
        ("cpu", None, "numpy", "", ""),
        ("gpu", None, "jax-cuda13-plugin", "", ""),
        ("gpu", None, "jax-cuda13-plugin", "gpu", ""),
        ("gpu", None, "", "tpu", "--require=tpu: JAX computes on gpu here"),
        ("cpu", "cpu", "", "gpu", "does nvidia-smi list"),
    ],
)
def test_a_run_on_other_devices_than_meant_is_refused(
    kind, asked, installed, require, says, monkeypatch
):
    def version(package):
        if package != installed:
            raise importlib.metadata.PackageNotFoundError
        return "1"

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(processes, "_platforms", lambda: asked or "")
    if says:
        with pytest.raises(ConfigError, match=says):
            processes._check_kind(kind, require)
    else:
        processes._check_kind(kind, require)


def test_options_have_hyphens_on_every_command_line():
    assert flags._hyphens("--join-timeout=3") == "--join_timeout=3"
    assert flags._hyphens("--config.a-b=3") == "--config.a-b=3"
    assert "--join-timeout SECONDS" in flags.help_text()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["main", "evaluate", "audit"])
def test_every_command_takes_the_options(command, tmp_path):
    words = ["--config=tests/configs/small.py"] if command == "main" else []
    at = f"--workdir={tmp_path}/run"
    done = call(f"l2l_jax.{command}", *words, at, "--distributed=n:1,2,2", "--join-timeout=5")
    assert done.returncode == 2
    assert "of 2 processes the ranks are 0 to 1, not 2" in done.stderr
