"""Workdir: writing and reading values; claims, locks and digests."""

import errno
import os
from pathlib import Path

import pytest

import l2l_jax
from l2l_jax.engine.run import evaluate_again
from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError, Damaged, NotSaved, UserError
from l2l_jax.report.collect import collect
from l2l_jax.weights.__main__ import read as read_weights
from l2l_jax.workdir import claim
from l2l_jax.workdir.layout import Workdir
from tests.helpers import DAMAGE


def test_an_empty_workdir_has_no_values(tmp_path):
    workdir = Workdir(tmp_path)
    assert workdir.read_versions() == workdir.read_original() == workdir.read_reference() == {}
    assert workdir.read_notes() == workdir.read_splits() == workdir.read_pictures() == {}
    assert list(workdir.read_metrics()) == []
    assert workdir.read_record("tsne") is None
    with pytest.raises(FileNotFoundError):
        workdir.read_results()


def test_what_is_written_is_read_back(tmp_path):
    workdir = Workdir(tmp_path)
    workdir.write_results({"task": "center"})
    workdir.write_record("tsne", [1, 2])
    workdir.note("unlearn", forget=1.5)
    workdir.note("pretrain", retain=0.5)
    workdir.note("unlearn", forget=2.5, retain=1.0)
    assert workdir.read_results() == {"task": "center"}
    assert workdir.read_record("tsne") == [1, 2]
    notes = {"unlearn": {"forget": 2.5, "retain": 1.0}, "pretrain": {"retain": 0.5}}
    assert workdir.read_notes() == notes
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"results.json", "tsne.json", "phases.json"}


def test_a_folder_without_a_run_names_the_runs_beside_it(tmp_path):
    files.write_json(Workdir(tmp_path / "first").config, {})
    with pytest.raises(ConfigError, match=r"holds no run.*Did you mean 'first'.*beside it: first"):
        Workdir(tmp_path / "frist").read_config()


def test_a_claimed_workdir_has_config_digests_and_versions(tmp_path):
    (tmp_path / f".config.json.x{files.TEMPORARY}").touch()
    claim.claim(tmp_path, {"weights": "a.pth", "sizes": (1, 2)}, {"digest": "aa"})
    claim.record_reference(tmp_path, {"weights": "runs/retrain", "digest": "bb"})
    workdir = Workdir(tmp_path)
    assert workdir.read_config() == {"weights": "a.pth", "sizes": [1, 2]}
    assert workdir.read_original() == {"weights": "a.pth", "digest": "aa"}
    assert workdir.read_versions()["continued_with"] == []
    assert not list(tmp_path.glob(".*")), "incomplete files are removed"
    claim.check_original(tmp_path, "aa")
    claim.check_reference(tmp_path, "bb")
    with pytest.raises(ConfigError, match=r"a\.pth is not what .* began with: its digest is cc"):
        claim.check_original(tmp_path, "cc")
    with pytest.raises(ConfigError, match=r"runs/retrain is not what .* it was bb"):
        claim.check_reference(tmp_path, "aa")


def test_a_locked_workdir_cannot_be_locked_again(tmp_path):
    with (
        claim.lock(tmp_path),
        pytest.raises(ConfigError, match="Another process"),
        claim.lock(tmp_path),
    ):
        pass
    with claim.lock(tmp_path):
        pass


def test_paths_that_cannot_be_workdirs(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(ConfigError, match=r"not empty and holds no run \(photo\.jpg\)"):
        claim.check_config_matches(tmp_path, {})
    with pytest.raises(ConfigError, match="not a local folder"):
        claim.check_config_matches(tmp_path.__class__("gs://bucket/run"), {})
    with pytest.raises(ConfigError, match="cannot be a workdir: File name too long"):
        claim.check_config_matches(tmp_path / ("n" * 300), {})
    with pytest.raises(Damaged, match="jpg is a file; a folder of this name is needed"):
        claim.check_config_matches(tmp_path / "photo.jpg", {})
    below = tmp_path / "photo.jpg" / "run"
    with pytest.raises(NotSaved, match=r"could not be written: .* move it away"), claim.lock(below):
        pass


def test_a_path_that_is_too_long_is_named_by_every_command(tmp_path):
    path = tmp_path / ("n" * 300)
    commands = {
        "evaluate": evaluate_again, "report": collect, "export": read_weights, "load": l2l_jax.load
    }  # fmt: skip
    for command in commands.values():
        with pytest.raises(UserError, match="n" * 300):
            command(path)


def test_a_read_only_workdir_is_named(tmp_path, monkeypatch):
    def read_only(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "open", read_only)
    with (
        pytest.raises(NotSaved, match=r"lock could not be written: Read-only.*Make the folder"),
        claim.lock(tmp_path),
    ):
        pass


READERS = {
    "config.json": (Workdir.read_config, "start again in another workdir"),
    "versions.json": (Workdir.read_versions, "or remove it"),
    "original.json": (Workdir.read_original, "or remove it, if the weights file is still the one"),
    "reference.json": (Workdir.read_reference, "if the retrained model is still the one"),
    "phases.json": (Workdir.read_notes, "Remove it: what the run still needs is measured again"),
    "results.json": (Workdir.read_results, "l2l_jax.evaluate --workdir .* makes it again"),
    "tsne.json": (lambda workdir: workdir.read_record("tsne"), "makes it again"),
    "splits/retain.json": (Workdir.read_splits, "Continue the run"),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("damage", ["one flipped bit", "cut in half", "emptied", "a folder"])
def test_damaged_files_are_named_with_the_way_out(name, damage, tmp_path):
    files.write_json(tmp_path / name, {"value": list(range(100))})
    DAMAGE[damage](tmp_path / name)
    read, remedy = READERS[name]
    with pytest.raises(UserError, match=f"{name} .*{remedy}" if name[:3] != "con" else "config"):
        read(Workdir(tmp_path))


def test_folders_in_place_of_files_and_the_reverse(tmp_path):
    for name in ("results.json", "report.html", ".lock", "metrics.jsonl"):
        (tmp_path / name).mkdir()
        with pytest.raises(Damaged, match=f"{name} is a folder"):
            Workdir(tmp_path).check_kinds()
        (tmp_path / name).rmdir()
    for name in ("splits", "images", "checkpoints", "tensorboard"):
        (tmp_path / name).touch()
        with pytest.raises(Damaged, match=f"{name} is a file"):
            claim.check_config_matches(tmp_path, {})
        (tmp_path / name).unlink()


def test_missing_records_of_a_run_that_has_begun_are_named(tmp_path, caplog):
    claim.claim(tmp_path, {"weights": "a.pth"}, {"digest": "aa"})
    (tmp_path / "checkpoints" / "unlearn" / "2").mkdir(parents=True)
    for name in ("versions.json", "original.json"):
        (tmp_path / name).unlink()
    claim.claim(tmp_path, {"weights": "a.pth"}, {"digest": "aa"})
    assert "versions.json is missing" in caplog.text
    assert "original.json is missing: it is recorded again, from a.pth" in caplog.text
    (tmp_path / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"config\.json is missing\. Restore it"):
        claim.check_config_matches(tmp_path, {})
