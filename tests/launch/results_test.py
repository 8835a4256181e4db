"""launch/results.py: what it runs, what it keeps, and where the tables go."""

import json
import re

import pytest

from l2l_jax.engine.plan import resolve
from l2l_jax.lib import cli
from l2l_jax.registry import names
from launch import results
from tests.helpers import ROOT
from tests.report.planted import audit, row
from tests.report.runs import make, phase


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Rows and page in a folder of their own; the page has the marks of one grid."""
    monkeypatch.setattr(results, "ROWS", tmp_path / "rows")
    monkeypatch.setattr(results, "PAGE", tmp_path / "results.md")
    monkeypatch.setattr(results, "FIGURES", ("fid", "psnr"))
    (tmp_path / "rows").mkdir()
    (tmp_path / "results.md").write_text(
        "Before.\n<!-- begin mae -->\nthe table before\n<!-- end mae -->\nAfter.\n"
    )
    return tmp_path


def finished(folder, method, seed, **audits):
    return make(folder / f"{method},seed={seed}", seed, {"unlearn": phase(method)}, audits=audits)


def test_a_finished_row_is_kept_and_not_made_again(place):
    finished(place / "mae", "l2l", 1, relearn=audit(row(0.9, steps=10)))
    finished(place / "mae", "max_loss", 1)  # its audits are not there yet
    results.keep("mae", place / "mae")
    assert [path.name for path in (place / "rows").iterdir()] == ["mae-l2l-1.json"]
    assert "l2l" not in results.missing("mae")[1]
    assert "max_loss" in results.missing("mae")[1]
    assert "l2l" in results.missing("mae")[0]
    (record,) = results.rows("mae")
    assert record.results["audits"]["relearn"]["rows"]
    assert record.splits["forget_eval"].keys() == {"digest", "part"}


def test_the_tables_replace_what_stands_between_the_marks(place):
    finished(place / "mae", "l2l", 0, relearn=audit(row(0.9, steps=10)))
    results.keep("mae", place / "mae")
    assert list(results.tables(["mae"])) == ["mae: 1 rows"]
    text = (place / "results.md").read_text()
    assert text.startswith("Before.\n<!-- begin mae -->\n")
    assert text.endswith("<!-- end mae -->\nAfter.\n")
    assert r"| l2l | 1 | 0.90 \[0.85, 0.95\] (hidden) |" in text
    assert "the table before" not in text
    assert list(results.tables(["autoencoder"])) == [], "no row, no change"
    with pytest.raises(ValueError, match="begin autoencoder"):
        results.replaced(text, "autoencoder", "")


@pytest.mark.parametrize("name", results.GRIDS)
def test_the_configs_of_a_grid_exist(name):
    grid = results.GRIDS[name]
    for method in grid.methods:
        spec = f"{ROOT}/{grid.spec},{method}"
        config = cli.load_config(spec)
        for word in grid.overrides():
            key, value = word.removeprefix("--config.").split("=", 1)
            assert key.split(".")[0] in config, key
            assert value
            if key == "reference":
                config.reference = value
        assert len(resolve(config).references) == grid.references


@pytest.mark.parametrize("name", results.GRIDS)
def test_a_grid_leaves_out_what_its_model_refuses(name):
    grid = results.GRIDS[name]
    model = resolve(cli.load_config(f"{ROOT}/{grid.spec}")).model.build()
    if not hasattr(model, "head_examples"):
        assert "ridge_head" not in grid.methods, "it solves for the last layer, if that is linear"


def test_the_rows_in_the_docs_are_rows_of_a_grid():
    expected = {
        results.path_of(name, method, seed).name
        for name, grid in results.GRIDS.items()
        for method in grid.methods
        for seed in grid.seeds
    }
    kept = list((ROOT / "docs/results").glob("*.json"))
    assert {path.name for path in kept} <= expected
    for path in kept:
        found = json.loads(path.read_text())
        assert not re.findall(r'"/[a-z][^"]*', path.read_text()), "a path of a machine"
        assert set(found["results"]["audits"]) <= set(names("audit")), path.name
