"""Several runs on one page: shared originals once, the best marked, unequal conditions named."""

import re

import pytest

from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError
from l2l_jax.report.__main__ import main
from tests.report.runs import make


@pytest.fixture
def runs(tmp_path):
    """Two runs from one original; the second forgets more and retains less."""
    first, second = make(tmp_path / "a"), make(tmp_path / "b")
    change(second, "results.json", ["tasks", "center", "unlearned", "forget", "fid"], 90.0)
    change(second, "results.json", ["tasks", "center", "unlearned", "retain", "fid"], 15.0)
    return first, second


def change(folder, name, path, value):
    content = node = files.read_json(folder / name)
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    files.write_json(folder / name, content)


def page_of(*runs):
    out = runs[0].parent / "compared.html"
    main([*map(str, runs), "--out", str(out)])
    return out.read_text()


def rows_of(text):
    """{label: cells of its row} of the first table."""
    table = text[text.index("<tbody>") : text.index("</tbody>")]
    rows = (re.findall(r"<td(.*?)</td>", row) for row in table.split("</tr>"))
    return {row[0].lstrip(">"): row[1:] for row in rows if row}


def test_runs_stand_beside_their_original(runs):
    text = page_of(*runs)
    rows = rows_of(text)
    assert list(rows) == ["original", "a: unlearned", "b: unlearned"]
    assert rows["original"][0] == ">10.00"
    assert rows["a: unlearned"][0] == ' class="good">11.00', "retain: the smaller FID is good"
    assert rows["b: unlearned"][0] == ">15.00"
    assert ' class="good">90.00' in rows["b: unlearned"], "forget: the larger one"
    assert "Not measured alike" not in text
    assert text.count("data:image/png;base64,") == 2
    assert "<script" not in text


@pytest.mark.parametrize(
    ("name", "path", "value", "said"),
    [
        ("results.json", ["features", "digest"], "0" * 64, "the judges differ"),
        ("splits/retain_eval.json", ["digest"], "0" * 64, "the images differ"),
        ("config.json", ["seed"], 7, "the masks differ"),
        ("results.json", ["digests", "weights", "original"], "2" * 64, "the originals differ"),
    ],
)
def test_what_was_not_measured_alike_is_said(runs, name, path, value, said):
    change(runs[1], name, path, value)
    assert f"Not measured alike: {said}" in page_of(*runs)


def test_a_retrained_run_has_no_original_to_differ(runs):
    for path in (["digests", "weights"], ["tasks", "center"]):
        content = files.read_json(runs[1] / "results.json")
        for key in path:
            content = content[key]
        change(runs[1], "results.json", path, {"retrained": content["unlearned"]})
    text = page_of(*runs)
    assert "b: retrained" in rows_of(text)
    assert "Not measured alike" not in text


def test_two_originals_are_two_rows(runs):
    change(runs[1], "results.json", ["tasks", "center", "original", "retain", "fid"], 1.0)
    assert list(rows_of(page_of(*runs)))[:2] == ["a: original", "b: original"]


def test_runs_of_one_name_keep_apart(runs, tmp_path):
    other = make(tmp_path / "elsewhere" / "a")
    assert f"{other}: unlearned" in page_of(runs[0], other)


def test_a_comparison_needs_a_place(runs):
    with pytest.raises(ConfigError, match=r"--out compared\.html"):
        main([str(run) for run in runs])
