"""Workdir: writing and reading values; claims, locks and digests."""

import pytest

from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError
from l2l_jax.workdir import claim
from l2l_jax.workdir.layout import Workdir


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
    (tmp_path / ".config.json.x.tmp").touch()
    claim.claim(tmp_path, {"weights": "a.pth", "sizes": (1, 2)}, {"digest": "aa"})
    claim.record_reference(tmp_path, {"weights": "runs/retrain", "digest": "bb"})
    workdir = Workdir(tmp_path)
    assert workdir.read_config() == {"weights": "a.pth", "sizes": [1, 2]}
    assert workdir.read_original() == {"weights": "a.pth", "digest": "aa"}
    assert workdir.read_versions()["continued_with"] == []
    assert not list(tmp_path.glob(".*.tmp")), "incomplete files are removed"
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
