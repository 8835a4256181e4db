"""The lock files hold every dependency at the version of the constraints, with hashes."""

import configparser
import re
import subprocess

import pytest

from tests.helpers import ROOT

LOCKS = ROOT / "launch" / "locks" / "cp311-linux-x86_64"
NAMES = ("build", "base", "tensorboard", "dev", "torch", "gpu")


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(text):
    """{name: version} of a requirements file."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s\\]+)", text, re.M)
    return {normal(name): version.partition("+")[0] for name, version in found}


def locked(*names):
    return {k: v for name in names for k, v in pinned((LOCKS / f"{name}.txt").read_text()).items()}


def required(section, key):
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = [line for line in config[section][key].splitlines() if line.strip()]
    lines = [line for line in lines if "darwin" not in line or "!=" in line.split(";")[1]]
    return {normal(re.match(r"\s*([A-Za-z0-9._-]+)", line)[1]) for line in lines}


@pytest.mark.parametrize("name", NAMES)
def test_every_package_is_pinned_and_has_a_hash(name):
    text = (LOCKS / f"{name}.txt").read_text()
    entries = re.split(r"\n(?=[A-Za-z0-9])", text)
    assert len(entries) > 1
    for entry in entries[1:]:
        assert re.match(
            r"[A-Za-z0-9._-]+==\S+ \\\n( +--hash=sha256:[0-9a-f]{64}( \\)?\n?)+$", entry
        )


def test_the_locks_hold_all_that_is_required_at_the_versions_of_the_constraints():
    everything, constraints = locked(*NAMES), pinned((ROOT / "launch/constraints.txt").read_text())
    assert required("options", "install_requires") <= set(locked("base"))
    assert required("options.extras_require", "dev") <= set(locked("base", "dev", "torch"))
    wanted = required("options.extras_require", "tensorboard")
    assert wanted <= set(locked("tensorboard"))
    assert not wanted & set(locked("base")), "the base installation has no TensorFlow"
    assert required("options.extras_require", "gpu") <= set(locked("base", "gpu"))
    assert constraints.items() <= everything.items()
    assert "torch" not in locked("dev")


@pytest.mark.parametrize(
    ("extras", "tag", "files"),
    [
        ("", "cp311-linux-x86_64", ("build", "base")),
        ("[tensorboard]", "cp311-linux-x86_64", ("build", "base", "tensorboard")),
        ("[dev]", "cp311-linux-x86_64", ("build", "base", "dev", "torch")),
        ("[gpu]", "cp311-linux-x86_64", ("build", "base", "gpu")),
        ("[tpu]", "cp311-linux-x86_64", ()),
        ("", "cp313-linux-x86_64", ()),
    ],
)
def test_which_locks_are_used(tmp_path, extras, tag, files):
    """With a Python of another version or extras without a lock: none."""
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\necho {tag}\n")
    python.chmod(0o755)
    (tmp_path / "launch").symlink_to(ROOT / "launch")
    script = 'source launch/environment.sh; locked_files "$1"'
    done = subprocess.run(
        ["bash", "-c", script, "-", extras], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode == 0) == bool(files)
    listed = done.stdout.split() if files else []
    assert listed == [f"launch/locks/{tag}/{name}.txt" for name in files]
