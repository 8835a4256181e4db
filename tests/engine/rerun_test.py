"""The figures of a record are computed again, as far as their images are still there."""

import json
import shutil

import pytest

from l2l_jax.engine.rerun import rerun
from l2l_jax.lib import files
from l2l_jax.record import __main__ as command
from l2l_jax.record.write import write_with_page
from tests import listed_run
from tests.report import runs

pytestmark = pytest.mark.slow


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A copy of the finished run, with a copy of its data."""
    listed_run.copy(tmp_path, monkeypatch)
    shutil.copytree(listed_run.folder() / "mine", tmp_path / "mine")
    root = ["data", "args", "root"]
    runs.change(tmp_path / "run", "config.json", root, str(tmp_path / "mine"))
    write_with_page(tmp_path / "run")
    return tmp_path / "run"


def findings(workdir):
    return json.loads((workdir / "record" / "findings.json").read_text())


def test_the_figures_agree_and_a_changed_one_is_found(workdir):
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    found, recorded = rerun(workdir, findings(workdir)), findings(workdir)
    assert (found.differences, found.gone) == ([], [])
    assert found.compared >= 8
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before
    recorded["tasks"]["center"]["unlearned"]["retain"]["psnr"] += 0.5
    (line,) = rerun(workdir, recorded).differences
    assert line.startswith("PSNR, hidden pixels of center, unlearned, retain is ")


def test_figures_of_images_that_are_gone_are_listed(workdir, capsys):
    """As after a purge: the listed images are deleted from the data."""
    for key in listed_run.LISTED:
        (workdir.parent / "mine" / key).unlink()
    command.main(["verify", str(workdir), "--rerun"])
    said = capsys.readouterr().out
    trained = len(files.read_json(workdir / "splits" / "forget.json")["keys"])
    assert f"not recomputed: {trained} of the {trained} images of forget are gone" in said
    assert "not recomputed: figures of the side forget cannot be recomputed" in said
    assert "figures are recomputed and agree" in said
    assert said.endswith("intact, signer unknown\n")
