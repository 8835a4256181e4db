"""Each image of a list has an answer: found or not, copies, losses and scores."""

import json
import types

import numpy as np
import pytest

from l2l_jax.engine import answers, copies
from l2l_jax.lib import files
from l2l_jax.record import answers as tables
from l2l_jax.record.verify import verify
from l2l_jax.types import Source
from tests import listed_run


def experiment(pictures, splits):
    """What copies.find reads of an experiment; pictures: uint8 images of the training part."""
    source = Source(tuple(map(str, range(len(pictures)))), np.zeros(len(pictures), np.int32),
                    ("class",), lambda at: pictures[at])  # fmt: skip
    made = {name: types.SimpleNamespace(part="train", indices=np.array(rows))
            for name, rows in splits.items()}  # fmt: skip
    return types.SimpleNamespace(
        sources={"train": source}, splits=made, host=types.SimpleNamespace(threads=2),
        model=types.SimpleNamespace(image_size=16),
    )  # fmt: skip


def test_planted_copies_are_found_and_no_others():
    rng = np.random.default_rng(0)
    pictures = list(rng.integers(0, 256, (8, 20, 20, 3), np.uint8))
    pictures[5] = pictures[0].copy()  # an exact copy of a listed image, in retain
    moved = pictures[1].astype(int) + rng.integers(-3, 4, pictures[1].shape)
    pictures[6] = np.clip(moved, 0, 255).astype(np.uint8)  # a near one
    pictures[7] = (pictures[1] * 0.5).astype(np.uint8)  # the same hash, other pixels
    pictures[2] = pictures[1].copy()  # both are listed: that is no copy elsewhere
    made = experiment(pictures, {"forget": [0, 1, 2], "retain": [3, 4, 5, 6, 7]})
    found = copies.find(made, [("train", row) for row in (0, 1, 2)])
    assert found["train", 0] == copies.Copies((("train", 5),), ())
    assert found["train", 1] == copies.Copies((), (("train", 6),))
    assert found["train", 2] == copies.Copies((), (("train", 6),))
    assert copies.where(made, found["train", 0].exact) == {"retain": 1}


def test_the_score_is_the_share_of_never_seen_images_with_a_higher_loss():
    unseen = np.array([1.0, 2.0, 3.0, 4.0])
    assert answers.score(0.5, unseen) == 1.0
    assert answers.score(2.0, unseen) == 0.625, "ties count half"
    assert answers.score(9.0, unseen) == 0.0


def test_a_table_says_the_same_with_digests_in_place_of_names():
    row = dict(image="a,b\n.png", digest="f" * 64, state="trained on", exact_copies=1,
               near_copies=0, copies_in={"retain": 1}, copies=["a/copy.png"], loss_before=0.125,
               loss_after=1 / 3, unseen_before=0.3, unseen_after=0.3, score_before=1.0,
               score_after=None)  # fmt: skip
    rows = [row, dict(image="=evil()", digest="e" * 64, state="not in the data")]
    private, public = (tables.table(rows, names) for names in (True, False))
    assert "a/copy.png" in private
    assert "'=evil()" in private, "a spreadsheet must not run it"
    assert "png" not in public
    assert [each["image"] for each in tables.parsed(public)] == ["f" * 64, "e" * 64]
    assert tables.summary(tables.parsed(public)) == tables.summary(rows)
    assert tables.summary(rows) | dict(lines=2, found=1, with_exact_copies=1) == tables.summary(
        rows
    )
    assert tables.summary(rows)["loss_after"] == 0.333333
    assert tables.summary(rows)["score_after"] is None


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    listed_run.copy(tmp_path, monkeypatch)
    return tmp_path / "run"


@pytest.mark.slow
def test_a_run_answers_each_line_of_its_list(workdir):
    found = files.read_json(workdir / "answers.json")
    rows = {row["image"]: row for row in found["rows"]}
    assert list(rows) == [*listed_run.LISTED, listed_run.ABSENT], "in the order of the list"
    assert rows[listed_run.ABSENT].keys() == {"image", "state", "digest"}
    trained = files.read_json(workdir / "splits" / "forget.json")["keys"]
    assert 0 < len(trained) < len(listed_run.LISTED), "some are held out"
    for key in listed_run.LISTED:
        row, state = rows[key], "trained on" if key in trained else "held out"
        assert (row["state"], row["exact_copies"]) == (state, 0)
        assert row["copies"] == [listed_run.NEAR] * (key == listed_run.OF)
        assert row["near_copies"] == len(row["copies"])
        assert all(row[f"loss_{when}"] > 0 < row[f"unseen_{when}"] for when in ("before", "after"))
        assert all(0 <= row[f"score_{when}"] <= 1 for when in ("before", "after"))
    unseen = {row["unseen_after"] for row in rows.values() if "unseen_after" in row}
    assert len(unseen) == 2, "each class has its own never-seen images"


@pytest.mark.slow
def test_names_are_in_the_private_table_alone(workdir):
    private = (workdir / "answers.csv").read_text()
    digests = [row["digest"] for row in files.read_json(workdir / "answers.json")["rows"]]
    assert all(key in private for key in (*listed_run.LISTED, listed_run.ABSENT))
    page = (workdir / "report.html").read_text()
    public = (workdir / "record" / "answers.csv").read_text()
    assert all(digest in page and digest in public for digest in digests)
    for key in (*listed_run.LISTED, listed_run.ABSENT):
        assert key not in page
        assert key not in public
    findings = json.loads((workdir / "record" / "findings.json").read_text())
    assert findings["answers"]["lines"] == 7
    assert findings["answers"]["found"] == 6
    assert verify(workdir).intact


@pytest.mark.slow
def test_a_record_with_another_answer_is_found(workdir):
    from l2l_jax.record import manifest

    path = workdir / "record" / "answers.csv"
    lines = path.read_text().splitlines()
    cells = lines[1].split(",")
    cells[-1] = "0.99" if cells[-1] != "0.99" else "0.98"
    path.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")
    manifest.write(workdir / "record")
    assert "answers.csv does not agree with findings.json" in verify(workdir).problems
