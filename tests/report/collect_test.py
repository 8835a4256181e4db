"""A workdir as a record: what was changed since the evaluation is named, and on no page."""

import hashlib
import shutil

import pytest

from l2l_jax.engine.run import _check_steps, finished
from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError, Damaged, UserError
from l2l_jax.report import page
from l2l_jax.report.collect import collect, collect_all
from l2l_jax.workdir.layout import Workdir
from tests.helpers import DAMAGE
from tests.report import runs


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workdir whose results name the digests of all that belongs to them."""
    folder = runs.make(tmp_path_factory.mktemp("made") / "run")
    paths = {
        "pictures": folder / "images" / "center_forget.png",
        "records": folder / "tsne.json",
    }
    for kind, path in paths.items():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        runs.change(folder, "results.json", ("digests", kind), {path.stem: digest})
    splits = {p.stem: files.read_json(p)["digest"] for p in (folder / "splits").iterdir()}
    runs.change(folder, "results.json", ("digests", "splits"), splits)
    lines = [dict(phase="unlearn", step=i, retain=i, forget=4 - i) for i in range(4)]
    (folder / "metrics.jsonl").write_bytes(b"".join(map(files.json_line, lines)))
    page.write(folder)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(made, tmp_path / "run")


FILES = ("config.json", "results.json", "versions.json", "tsne.json", "splits/forget_eval.json",
         "images/center_forget.png")  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_no_page_is_made_of_damaged_files(name, damage, folder, made):
    DAMAGE[damage](folder / name)
    with pytest.raises(UserError, match=name):
        page.write(folder)
    assert list(collect_all([folder, made])[1]) == [folder], "a comparison leaves it out"


def test_a_split_of_another_run_is_named(folder):
    shutil.copy(folder / "splits" / "forget.json", folder / "splits" / "retain_eval.json")
    runs.change(folder, "splits/retain_eval.json", ("digest",), "e" * 64)
    with pytest.raises(ConfigError, match=r"retain_eval\.json is damaged or was changed.*evaluate"):
        collect(folder)


@pytest.mark.parametrize("damage", DAMAGE)
def test_lost_metrics_are_named(damage, folder, caplog):
    DAMAGE[damage](folder / "metrics.jsonl")
    if damage == "a folder":
        with pytest.raises(UserError, match=r"metrics\.jsonl is a folder"):
            collect(folder)
        return
    assert len(collect(folder).metrics) < 4
    assert "metrics.jsonl" in caplog.text


def test_a_lost_last_line_is_named(folder, caplog):
    assert len(collect(folder).metrics) == 4
    assert not caplog.text
    path = folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-3])
    collect(folder)
    assert "metrics.jsonl has records of 3 of the 4 steps of unlearn" in caplog.text


def test_results_of_lost_checkpoints_are_not_replaced(folder):
    workdir = Workdir(folder)
    _check_steps(workdir, {"unlearn": (4, 6)})
    with pytest.raises(Damaged, match=r"unlearn ends at step 2, and .*results\.json is of step 4"):
        _check_steps(workdir, {"unlearn": (2, 6)})
    workdir.results.unlink()
    _check_steps(workdir, {"unlearn": (2, 6)})


@pytest.mark.parametrize("name", ["results.json", "report.html"])
@pytest.mark.parametrize("damage", ["one flipped bit", "cut in half", "emptied"])
def test_a_run_with_damaged_results_is_not_finished(name, damage, folder, caplog):
    assert finished(folder)
    DAMAGE[damage](folder / name)
    assert not finished(folder)
    assert f"{name} " in caplog.text
