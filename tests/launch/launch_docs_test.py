"""docs/launch.md: every command in it runs, against stand-ins for what is not here."""

import itertools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from l2l_jax import processes
from l2l_jax.lib import cli
from tests.helpers import ROOT

TEXT = (ROOT / "docs" / "launch.md").read_text()
FAKES = ROOT / "tests" / "launch" / "fakes"


def commands():
    """Yields the words of every command in the code blocks."""
    for block in re.findall(r"```\n(.*?)```", TEXT, flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


COMMANDS = {" ".join(words): words for words in commands()}
DRILLS = {"launch/drills/hosts.sh --quick", "launch/drills/slurm.sh"}  # .ci/run runs them


def words_of(command):
    return [words for text, words in COMMANDS.items() if text.startswith(command)]


def test_every_command_belongs_to_a_test():
    tested = ("python -m", "launch/tpu.sh", "sbatch", "scontrol requeue", "kubectl", "sky jobs")
    assert {text for text in COMMANDS if not text.startswith(tested)} == DRILLS
    assert all(words_of(command) for command in tested)
    ci = (ROOT / ".ci" / "run").read_text()
    assert all(drill in ci for drill in DRILLS)


def stand_in(folder, name, text):
    """Puts a command that is not here, or must not run, into the folder."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/usr/bin/env bash\nset -eu\n{text}\n")
    (folder / name).chmod(0o755)


def run(words, *folders, **env):
    path = ":".join([*map(str, folders), os.environ["PATH"]])
    env = os.environ | {"PATH": path} | env
    return subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)


def check_run(words):
    """Checks the words after `python -m l2l_jax.main`, as far as that needs no other host."""
    given = dict(itertools.pairwise(words))
    given |= dict(word.split("=", 1) for word in words if "=" in word)
    config = cli.load_config(given["--config"])
    for word in words:
        if word.startswith("--config."):
            node = config
            for part in word.removeprefix("--config.").split("=")[0].split("."):
                node = node[part]
    if given["--distributed"] != "auto":
        assert processes.parse(given["--distributed"])
    assert given["--workdir"]
    assert given.get("--require", "gpu") in processes.KINDS


@pytest.mark.parametrize("words", words_of("python -m"), ids=" ".join)
def test_commands_by_hand(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    if words[2] == "l2l_jax.main":
        check_run(words[3:])
        return
    module = __import__(words[2], fromlist=["main"])
    seen = []
    monkeypatch.setattr(processes, "begin", lambda *given: seen.append(processes.parse(given[0])))
    monkeypatch.setattr("l2l_jax.engine.run.evaluate_again", seen.append)
    monkeypatch.setattr("l2l_jax.engine.run.audit_again", lambda *given: seen.append(given[0]))
    module.main(words[3:])
    assert seen == [processes.Address("node1:12321", 2, 0), Path("/shared/runs/mae")]


@pytest.mark.slow
@pytest.mark.parametrize("words", words_of("launch/tpu.sh"), ids=" ".join)
def test_commands_of_cloud_tpu(words, tmp_path):
    (tmp_path / "states").write_text("CREATE\nACTIVE" if words[1] == "run" else "ACTIVE")
    (tmp_path / "ssh").write_text("0")
    done = run(words, FAKES, FAKE=str(tmp_path), L2L_POLL_SECONDS="0")
    assert done.returncode == 0, done.stderr
    if words[1] == "run":
        flags = (tmp_path / "flags").read_text().split()
        check_run([*flags, "--workdir", "x", "--distributed=auto", "--require=tpu"])


@pytest.mark.parametrize("words", words_of("sbatch"), ids=" ".join)
def test_commands_of_slurm(words, tmp_path, monkeypatch):
    """sbatch takes options, the script, and its arguments; the script ends in srun."""
    monkeypatch.chdir(ROOT)
    stand_in(
        tmp_path,
        "sbatch",
        'while [[ "$1" == --* ]]; do '
        'case "$1" in --nodes=*|--gres=*) ;; --ntasks-per-node=*) '
        'export SLURM_NTASKS_PER_NODE="${1#*=}";; *) exit 9;; esac; shift; done; exec "$@"',
    )
    stand_in(tmp_path, "srun", 'printf "%s\\n" "${JAX_LOCAL_DEVICE_IDS:-}" "$@"')
    done = run(words, tmp_path, SLURM_GPUS_ON_NODE="8")
    assert done.returncode == 0, done.stderr
    devices, kill, python, *rest = done.stdout.splitlines()
    assert devices == ("" if "--ntasks-per-node=8" in words else "0,1,2,3,4,5,6,7")
    assert (kill, python) == ("--kill-on-bad-exit=1", ".venv/bin/python")
    assert rest[:2] == ["-m", "l2l_jax.main"]
    check_run(rest[2:])


@pytest.mark.parametrize("words", words_of("scontrol"), ids=" ".join)
def test_a_requeue_is_what_the_drill_does(words):
    assert " ".join(words[:2]) in (ROOT / "launch" / "drills" / "slurm.sh").read_text()


READS = f"""
import sys, yaml
sys.path.insert(0, {str(ROOT)!r})
for each in yaml.safe_load_all(open(sys.argv[1])):
    print(each.get("kind", each.get("name")))
"""


@pytest.mark.parametrize("words", words_of("kubectl") + words_of("sky"), ids=" ".join)
def test_commands_of_kubernetes_and_skypilot(words, tmp_path):
    """The files are read as YAML, and hold what the commands name."""
    read = f'exec {sys.executable} "{tmp_path}/read.py"'
    (tmp_path / "read.py").write_text(READS)
    stand_in(
        tmp_path,
        "kubectl",
        f'case "$1 $2" in "apply -f"|"delete -f") {read} "$3";; "logs -f") '
        'grep -q "${4/=/: }" launch/k8s.yaml;; *) exit 9;; esac',
    )
    stand_in(
        tmp_path,
        "sky",
        f'case "$1 $2" in "jobs launch") for e in "$5" "$7"; do grep -q "^  ${{e%%=*}}:" "$3"; '
        f'done; {read} "$3";; "jobs queue"|"jobs logs") ;; *) exit 9;; esac',
    )
    done = run(words, tmp_path)
    assert done.returncode == 0, done.stderr
    if "apply" in words:
        kinds = ["ServiceAccount", "Role", "RoleBinding", "Service", "Job"]
        assert done.stdout.split() == kinds
    if "launch" in words:
        assert done.stdout == "l2l-run\n"
