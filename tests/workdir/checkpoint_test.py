"""Checkpoints on other meshes, with damaged files, and on full disks."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l_jax.lib import sharding
from l2l_jax.lib.errors import Damaged, NotSaved, Unrestorable
from l2l_jax.workdir import checkpoint
from tests.helpers import DAMAGE, ROOT, flip

TREE = {"w": {i: jnp.arange(4096.0).reshape(64, 64) + i for i in range(11)}, "step": jnp.int32(3)}


def place(tree, devices):
    mesh = sharding.make_mesh(-1, jax.devices()[:devices])
    return sharding.place(jax.device_get(tree), sharding.parameter_shardings(mesh, tree))


def abstract_state(devices):
    mesh = sharding.make_mesh(-1, jax.devices()[:devices])
    return sharding.abstract_tree(mesh, jax.eval_shape(lambda: TREE))


def save(folder, *steps, keep=5):
    checkpoints = checkpoint.Checkpoints(folder, keep)
    for step in steps:
        checkpoints.save(step, place(TREE | {"step": jnp.int32(step)}, 8))
    checkpoints.wait()
    checkpoints.close()


def restore(folder, devices=1):
    checkpoints = checkpoint.Checkpoints(folder, 5)
    try:
        return checkpoints.restore(abstract_state(devices))
    finally:
        checkpoints.close()


@pytest.mark.parametrize("devices", [1, 4, 8])
def test_saved_on_eight_devices_restored_on_any(tmp_path, devices):
    save(tmp_path, 1)
    back = restore(tmp_path, devices)
    for i in range(11):
        assert np.array_equal(back["w"][i], TREE["w"][i]), "blocks keep their order beyond ten"
    assert len(back["w"][0].sharding.device_set) == devices


def test_only_the_newest_are_kept_with_their_digests(tmp_path):
    save(tmp_path, 1, 2, 3, 4, keep=2)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["3", "3.sha256.json", "4", "4.sha256.json"]


def largest(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, damage, caplog):
    save(tmp_path, 1, 2)
    DAMAGE[damage](largest(tmp_path / "2"))
    with caplog.at_level(logging.WARNING):
        assert int(restore(tmp_path)["step"]) == 1
    assert f"{tmp_path / '2'} is damaged" in caplog.text
    assert (tmp_path / "damaged-2").is_dir(), "the damaged checkpoint is renamed, not removed"
    save(tmp_path, 2)
    assert int(restore(tmp_path)["step"]) == 2


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_of_digests_is_named_and_the_checkpoint_used(damage, tmp_path, caplog):
    save(tmp_path, 1, 2)
    DAMAGE[damage](tmp_path / "2.sha256.json")
    assert int(restore(tmp_path)["step"]) == 2
    assert ("2.sha256.json" in caplog.text) == (damage != "deleted")
    save(tmp_path, 3, keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "3.sha256.json"]


def test_older_parameters_are_not_taken_for_the_newest(tmp_path):
    save(tmp_path, 1, 2)
    flip(largest(tmp_path / "2"))
    reader = checkpoint.Checkpoints(tmp_path)
    with pytest.raises(Damaged, match=r"/2 is damaged; the newest intact checkpoint is 1\. To"):
        reader.restore(abstract_state(1), only_newest=True)
    reader.close()
    assert (tmp_path / "2").is_dir()


def test_files_in_place_of_folders_are_named(tmp_path):
    (tmp_path / "file").touch()
    for keep in (None, 2):
        with pytest.raises(Damaged, match="file is a file; it should be a folder"):
            checkpoint.Checkpoints(tmp_path / "file", keep)
    with pytest.raises(NotSaved, match="below could not be written: Not a directory"):
        checkpoint.Checkpoints(tmp_path / "file" / "below", 2)
    save(tmp_path / "c", 1)
    (tmp_path / "c" / "2").touch()
    with pytest.raises(Damaged, match="/2 is a file; a checkpoint is a folder"):
        checkpoint.Checkpoints(tmp_path / "c")


def test_leftovers_of_a_killed_save_are_removed(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "2.orbax-checkpoint-tmp-0" / "default").mkdir(parents=True)
    save(tmp_path, 3)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["1", "3"]


def test_only_damaged_checkpoints_are_an_error_not_a_new_start(tmp_path):
    save(tmp_path, 1)
    flip(largest(tmp_path / "1"))
    with pytest.raises(Unrestorable, match="Remove that folder"):
        restore(tmp_path)
    assert (tmp_path / "1").is_dir()


def test_restore_without_a_checkpoint_is_none(tmp_path):
    assert restore(tmp_path / "new") is None


def test_donated_arrays_are_copied_before_the_next_step(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path, 2)
    state = place(TREE, 1)
    step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    checkpoints.save(1, state)
    for _ in range(5):
        state = step(state)
    checkpoints.wait()
    checkpoints.close()
    assert int(restore(tmp_path)["step"]) == 3


def test_too_little_disk_space_is_noticed_before_writing(tmp_path, monkeypatch):
    checkpoints = checkpoint.Checkpoints(tmp_path, 2)
    checkpoints.save(1, place(TREE, 1))
    checkpoints.wait()
    usage = checkpoint.shutil._ntuple_diskusage(10**6, 10**6 - 1000, 1000)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(NotSaved, match=r"disk is full .* are needed, 1,000 are free.*checkpoint 1"):
        checkpoints.save(2, place(TREE, 1))
    checkpoints.close()
    assert checkpoint.Checkpoints(tmp_path, 2).steps() == [1]


SCRIPT_WITH_FULL_DISK = """
import resource, signal, sys
sys.path.insert(0, {root!r})
import jax.numpy as jnp
from pathlib import Path
from l2l_jax.workdir import checkpoint
from l2l_jax.lib.errors import (NotSaved)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
c = checkpoint.Checkpoints(Path({folder!r}), 3)
state = {{"w": jnp.sin(jnp.arange(300000.0))}}
c.save(1, state)
c.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY))
try:
    c.save(2, state)
    c.wait()
except NotSaved as error:
    print(error)
c.close()
"""


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before_intact(tmp_path):
    """Simulates a full disk: no file may grow past 20 kB."""
    script = SCRIPT_WITH_FULL_DISK.format(root=str(ROOT), folder=str(tmp_path / "c"))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    assert "Step 2 could not be saved" in done.stdout, done.stderr
    assert "the disk is full" in done.stdout
    assert "checkpoint 1 is intact" in done.stdout
    assert "run the same command again" in done.stdout
    checkpoints = checkpoint.Checkpoints(tmp_path / "c", 3)
    shape = {"w": jax.ShapeDtypeStruct((300000,), jnp.float32)}
    mesh = sharding.make_mesh(1, jax.devices()[:1])
    back = checkpoints.restore(sharding.abstract_tree(mesh, shape))
    checkpoints.close()
    assert np.array_equal(back["w"], jnp.sin(jnp.arange(300000.0)))


def test_a_bucket_is_recognised_by_its_mount(tmp_path, monkeypatch):
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/vda / ext4 rw 0 0\nruns /mnt/a\\040b fuse.gcsfuse rw 0 0\n")
    monkeypatch.setattr(checkpoint, "MOUNTS", mounts)
    assert checkpoint.on_fuse(Path("/mnt/a b/runs/x"))
    assert not checkpoint.on_fuse(Path("/mnt/other"))
    monkeypatch.setattr(checkpoint, "MOUNTS", tmp_path / "absent")
    assert not checkpoint.on_fuse(Path("/mnt/a b"))


def test_in_a_bucket_no_folder_is_renamed_and_a_file_marks_a_whole_checkpoint(
    tmp_path, monkeypatch
):
    """A checkpoint without the file is not used; one from before the folder was a bucket is."""
    renamed = []

    def recorded(rename):
        def call(source, target, **more):
            renamed.extend([source] if Path(source).is_dir() else [])
            return rename(source, target, **more)

        return call

    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, recorded(getattr(os, name)))
    save(tmp_path, 1)
    assert renamed, "elsewhere a whole checkpoint gets its name by a renaming"
    renamed.clear()
    monkeypatch.setattr(checkpoint, "on_fuse", lambda _: True)
    assert int(restore(tmp_path)["step"]) == 1
    save(tmp_path, 2, 3)
    assert not renamed
    assert int(restore(tmp_path)["step"]) == 3
    (tmp_path / "3" / "commit_success.txt").unlink()
    assert int(restore(tmp_path)["step"]) == 2
