"""Files: digests in JSON, damaged lines, what cannot be written, and leftovers of killed runs."""

import errno
import json
import os
import tempfile
import time

import pytest

from l2l_jax.lib import files
from l2l_jax.lib.errors import Damaged, NotSaved
from tests.helpers import DAMAGE

VALUE = {"a": [1, 2.5, None], "b": {"3": "é" * 100}}


def test_a_digest_is_in_the_file_and_not_in_the_value(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, {"a": (1, 2.5, None), "b": {3: "é" * 100}})
    assert files.read_json(path) == VALUE
    raw = json.loads(path.read_text())
    assert list(raw) == ["a", "b", files.SEAL]
    path.write_text(json.dumps(raw, indent=8, sort_keys=True))
    assert files.read_json(path) == VALUE, "white space and order do not count"
    path.write_text(json.dumps(VALUE))
    assert files.read_json(path) == VALUE, "a file without a digest is read"
    raw["a"][1] = 2.6
    path.write_text(json.dumps(raw))
    with pytest.raises(Damaged, match=r"x\.json does not fit the digest in it.* Do this\."):
        files.read_json(path, "Do this.")


@pytest.mark.parametrize("damage", [name for name in DAMAGE if name != "deleted"])
def test_damaged_json_is_named(damage, tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, VALUE)
    DAMAGE[damage](path)
    with pytest.raises(Damaged, match=r"x\.json .* Do this\."):
        files.read_json(path, "Do this.")


def test_other_content_is_named(tmp_path):
    path = tmp_path / "x.json"
    for content in (b"[1]", b"3", b"\xff\xfe{}", b"\0" * 100, b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(Damaged, match=r"x\.json"):
            files.read_object(path)
    with pytest.raises(FileNotFoundError):
        files.read_object(tmp_path / "y.json")


def lines(path, *records):
    path.write_bytes(b"".join(map(files.json_line, records)))
    return path


def steps(path):
    return [record["step"] for record in files.read_jsonl(path)]


def test_one_cut_line_drops_no_other(tmp_path, caplog):
    path = lines(tmp_path / "m.jsonl", *({"step": i, "loss": 1 / (i + 3)} for i in range(5)))
    assert list(files.read_jsonl(path))[1] == {"step": 1, "loss": 0.25}
    data = path.read_bytes().splitlines(keepends=True)
    for wrong in (
        data[2][:9] + b"\n",
        b"\n",
        b"\xff\xfe\n",
        b"7\n",
        data[2].replace(b"0.2", b"0.3"),
    ):
        path.write_bytes(b"".join([*data[:2], wrong, *data[3:]]))
        caplog.clear()
        assert steps(path) == [0, 1, 3, 4], wrong
        assert (
            f"{path}: 1 of 5 lines are damaged and are left out, the first is line 3" in caplog.text
        )


def test_a_last_line_cut_by_a_kill_is_no_damage(tmp_path, caplog):
    path = lines(tmp_path / "m.jsonl", {"step": 0}, {"step": 1})
    path.write_bytes(path.read_bytes()[:-4])
    assert steps(path) == [0]
    assert not caplog.text


def test_a_folder_in_place_of_lines_is_named(tmp_path):
    with pytest.raises(Damaged, match=r"cannot be read: .* is a folder, not a regular file"):
        steps(tmp_path)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "No space left on device. Free some space"),
        (errno.EDQUOT, "Disk quota exceeded. Free some space"),
        (errno.EROFS, "Read-only file system. Make the folder writable"),
        (errno.EACCES, "Permission denied. Make the folder writable"),
        (errno.EIO, "Input/output error. Mend that"),
    ],
)
def test_a_file_that_cannot_be_written_is_named(code, advice, tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(code, os.strerror(code))

    path = tmp_path / "x.json"
    for place in (os, "fsync"), (os, "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(*place, fails)
            with pytest.raises(NotSaved, match=f"x.json could not be written: {advice}"):
                files.write_json(path, VALUE)
        assert not list(tmp_path.iterdir()), "nothing is left behind"
    monkeypatch.setattr(tempfile, "mkstemp", lambda **_: fails())
    with pytest.raises(NotSaved, match=advice):
        files.write_json(path, VALUE)


def test_names_that_are_taken_or_too_long(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for name, advice in (("folder", "A folder has the name of this file"),
                         ("file/x", "A file has the name of a folder"),
                         ("n" * 300, "Choose a shorter path")):  # fmt: skip
        with pytest.raises(NotSaved, match=advice):
            files.write_json(tmp_path / name, VALUE)
    files.write_json(tmp_path / ("n" * 250), VALUE)


def test_an_error_of_another_file_is_not_one_of_writing(tmp_path):
    with pytest.raises(Damaged), files.atomic_write(tmp_path / "x"):
        files.read_json(tmp_path)


def test_leftovers_of_killed_processes_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_swept", set())
    old, young = tmp_path / f".a.xx{files.TEMPORARY}", tmp_path / f".b.yy{files.TEMPORARY}"
    folder, other = tmp_path / f".c.zz{files.TEMPORARY}", tmp_path / ".mine.tmp"
    folder.mkdir()
    for path in (old, young, folder / "1.jpg", other):
        path.touch()
    day_ago = time.time() - files.STALE_SECONDS - 60
    for path in (old, folder, other):
        os.utime(path, (day_ago, day_ago))
    files.write_json(tmp_path / "x.json", VALUE)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {young.name, other.name, "x.json"}, "a young one may belong to a living process"
