"""launch/tpu.sh against a gcloud that plays its part, and what the hosts of a TPU run."""

import json
import os
import subprocess
import tarfile

import pytest

from tests.helpers import ROOT

FAKES = ROOT / "tests" / "launch" / "fakes"
RUN = ("run", "mae", "--zone=us-central1-a", "--type=v5litepod-16", "--bucket=gs://runs-of-us",
       "--spot", "--", "--config", "configs/mae_imagenet.py", "--config.seed=1")  # fmt: skip


@pytest.fixture
def fake(tmp_path):
    (tmp_path / "bucket").write_text("True")
    (tmp_path / "ssh").write_text("0")
    return tmp_path


def tpu(fake, *words, states=("CREATE", "ACTIVE")):
    """Runs launch/tpu.sh; returns (what it did, the commands of gcloud that change something)."""
    (fake / "states").write_text("\n".join(states))
    (fake / "calls").unlink(missing_ok=True)
    env = os.environ | {"PATH": f"{FAKES}:{os.environ['PATH']}", "FAKE": str(fake),
                        "L2L_POLL_SECONDS": "0"}  # fmt: skip
    done = subprocess.run(
        ["launch/tpu.sh", *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60
    )
    calls = (fake / "calls").read_text().splitlines() if (fake / "calls").exists() else []
    verbs = ("create", "delete", "cp", "ssh")
    return done, [call for call in map(json.loads, calls) if set(call[:5]) & set(verbs)]


def verbs(calls):
    return [
        next(word for word in call if word in ("create", "delete", "cp", "ssh")) for call in calls
    ]


@pytest.mark.slow
def test_a_run_on_a_tpu_ends_with_its_exit_code_and_without_the_tpu(fake):
    done, calls = tpu(
        fake, *RUN, states=("CREATE", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE")
    )
    assert done.returncode == 0, done.stderr
    assert verbs(calls) == ["cp", "create", "ssh", "delete"]
    create = calls[1]
    assert {"--spot", "--autocheckpoint-enabled", "--accelerator-type=v5litepod-16",
            "--runtime-version=v2-alpha-tpuv5-lite", "--node-id=mae"} <= set(create)  # fmt: skip
    assert (fake / "flags").read_text().split() == list(RUN[RUN.index("--") + 1 :])
    assert "mae: PROVISIONING" in done.stdout
    assert "unlearn 1/6" in done.stdout, "the log is shown"
    (fake / "ssh").write_text("2")
    done, calls = tpu(fake, *RUN)
    assert done.returncode == 2
    assert verbs(calls)[-1] == "delete"


@pytest.mark.slow
@pytest.mark.parametrize("gone", ["SUSPENDED", "PREEMPTED"])
def test_a_preempted_tpu_is_deleted_and_made_again(fake, gone):
    (fake / "ssh").write_text("BROKEN\n0")
    states = ("CREATE", "ACTIVE", gone, "CREATE", "ACTIVE")
    done, calls = tpu(fake, *RUN, states=states)
    assert done.returncode == 0, done.stderr
    assert verbs(calls) == ["cp", "create", "ssh", "delete", "create", "ssh", "delete"]
    states = ("CREATE", "PROVISIONING", gone, "CREATE", "ACTIVE")
    done, calls = tpu(fake, *RUN, states=states)
    assert done.returncode == 0, done.stderr
    assert verbs(calls) == ["cp", "create", "delete", "create", "ssh", "delete"]
    (fake / "ssh").write_text("BROKEN")
    done, calls = tpu(fake, *RUN[:-4], "--attempts=1", *RUN[-4:], states=("CREATE", "ACTIVE", gone))
    assert done.returncode == 2
    assert "preempted 1 times" in done.stderr


@pytest.mark.slow
def test_a_broken_connection_to_a_tpu_that_is_there_is_made_again(fake):
    (fake / "ssh").write_text("BROKEN\n0")
    done, calls = tpu(fake, *RUN)
    assert done.returncode == 0, done.stderr
    assert verbs(calls) == ["cp", "create", "ssh", "ssh", "delete"]


@pytest.mark.slow
def test_a_run_continues_on_the_tpu_that_is_there(fake):
    done, calls = tpu(fake, *RUN, states=("ACTIVE",))
    assert done.returncode == 0, done.stderr
    assert verbs(calls) == ["cp", "ssh", "delete"]


@pytest.mark.slow
def test_a_failed_request_is_deleted_and_its_reason_shown(fake):
    done, calls = tpu(fake, *RUN, states=("CREATE", "CREATING", "FAILED"))
    assert done.returncode == 2
    assert "no capacity in this zone" in done.stderr
    assert verbs(calls) == ["cp", "create", "delete"]


@pytest.mark.slow
def test_a_tpu_that_does_not_come_is_given_up(fake):
    done, calls = tpu(fake, *RUN[:5], "--wait=0", *RUN[5:], states=("CREATE", "PROVISIONING"))
    assert done.returncode == 2
    assert "no TPU within --wait=0 minutes" in done.stderr
    assert verbs(calls) == ["cp", "create", "delete"]


@pytest.mark.slow
def test_a_dry_run_changes_nothing(fake):
    (fake / "bucket").unlink()
    done, calls = tpu(fake, *RUN[:5], "--dry-run", *RUN[5:])
    assert done.returncode == 0, done.stderr
    assert not calls
    shown = [line for line in done.stdout.splitlines() if line.startswith("would run: gcloud ")]
    assert len(shown) == len(done.stdout.splitlines()) == 4
    assert "--enable-hierarchical-namespace" in shown[0]
    assert "--location=us-central1" in shown[0]


def test_a_bucket_without_folders_is_refused(fake):
    (fake / "bucket").write_text("")
    done, calls = tpu(fake, *RUN)
    assert done.returncode == 2
    assert "no hierarchical namespace" in done.stderr
    assert not calls


def test_status_log_and_stop(fake):
    done, _ = tpu(fake, "status", "mae", "--zone=a-b", states=("PROVISIONING",))
    assert done.stdout == "PROVISIONING\n"
    done, _ = tpu(fake, "status", "mae", "--zone=a-b", states=("CREATE",))
    assert done.stdout == "ABSENT\n"
    done, calls = tpu(fake, "log", "mae", "--zone=a-b")
    assert "unlearn 1/6" in done.stdout
    done, calls = tpu(fake, "stop", "mae", "--zone=a-b")
    assert verbs(calls) == ["delete"]
    assert "--force" in calls[0]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("start", "mae"), "takes run, status, log or stop"),
        (("run", "My_run"), "NAME is of small letters"),
        (("stop", "mae"), "--zone is missing"),
        (("run", "mae", "--zone=a", "--type=v4-8", "--", "--config=x"), "--bucket is missing"),
        (("run", "mae", "--zone=a", "--type=v4-8", "--bucket=b"), "flags of l2l_jax.main"),
        (("run", "mae", "--zonne=a"), "does not know --zonne=a"),
    ],
)
def test_wrong_words_are_refused(fake, words, says):
    done, calls = tpu(fake, *words)
    assert done.returncode == 2
    assert says in done.stderr
    assert not calls


FAKE_COMMANDS = {
    "curl": 'case "$*" in *l2l-name) echo mae;; *l2l-bucket) echo runs-of-us;; '
    "*l2l-flags) printf '%s\\n' --config 'a b.py';; *) exit 22;; esac",
    "pkill": 'echo "pkill $*" >>"$FAKE/calls"',
    "apt-get": "exit 1",
    "mountpoint": "exit 1",
    "gcsfuse": 'echo "gcsfuse $*" >>"$FAKE/calls"',
    "python3": 'case "$*" in *venv*) mkdir -p .venv/bin; cp "$FAKE/bin/python3" .venv/bin/python;; '
    '*l2l_jax.main*) printf "<%s>" "$@" >>"$FAKE/calls"; echo >>"$FAKE/calls"; '
    'code=$(head -n 1 "$FAKE/codes"); sed -i 1d "$FAKE/codes"; echo a line; exit "$code";; esac',
}


def test_a_host_mounts_installs_and_tries_again_after_a_loss(tmp_path):
    """75 and 143 are followed by another try, after what is stale has been removed."""
    (tmp_path / "bin").mkdir()
    for name, text in FAKE_COMMANDS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    bucket = tmp_path / "mnt" / "l2l_jax"
    (bucket / "code").mkdir(parents=True)
    with tarfile.open(bucket / "code" / "mae.tar.gz", "w:gz") as archive:
        archive.add(ROOT / "launch" / "environment.sh", "launch/environment.sh")
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "libtpu_lockfile").touch()
    (tmp_path / "codes").write_text("75\n143\n3\n")
    env = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "FAKE": str(tmp_path),
           "L2L_ROOT": str(tmp_path), "L2L_POLL_SECONDS": "0"}  # fmt: skip
    subprocess.run([ROOT / "launch" / "tpu_worker.sh"], env=env, check=True, timeout=60)
    log = (tmp_path / "tmp" / "l2l_jax.log").read_text()
    calls = (tmp_path / "calls").read_text().splitlines()
    assert (tmp_path / "tmp" / "l2l_jax.exit").read_text() == "3\n", log
    assert not (tmp_path / "tmp" / "libtpu_lockfile").exists()
    assert [call.split()[0] for call in calls if call[0] != "<"] == [
        "pkill",
        "gcsfuse",
        "pkill",
        "pkill",
    ]
    runs = [call for call in calls if call[0] == "<"]
    assert len(runs) == 3
    assert "<--config><a b.py>" in runs[0]
    assert f"<--workdir><{bucket}/runs/mae>" in runs[0]
    assert "<--distributed=auto><--require=tpu>" in runs[0]
    assert log.count("a line") == 3
