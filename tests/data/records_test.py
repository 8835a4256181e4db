"""Records: found, indexed once, and never incomplete without an error."""

import io
import json
import os
import re
import shutil
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from PIL import Image

from l2l_jax.data import image_tree
from l2l_jax.data.records import convert, index, reader
from l2l_jax.lib.errors import BrokenImage, DataMissing
from tests.helpers import DAMAGE

FIELDS = reader.Fields(key="name")
CLASSES = ("cat", "dog", "owl")
HELP = "not in {root}: {missing}"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Twenty images in four files."""
    root = tmp_path_factory.mktemp("records")
    rows = []
    for at in range(20):
        path = root / f"{at}.jpg"
        noise = np.random.default_rng(at).integers(0, 256, (120, 100, 3), np.uint8)
        Image.fromarray(noise).save(path)
        rows.append((str(path), f"{19 - at:02d} é.jpg", at % 3))
    target = convert.Target(root / "pets" / "1.2.0", "pets", CLASSES, FIELDS, per_file=5)
    convert.convert(target, {"train": rows})
    return target.folder, rows


@pytest.fixture
def pets(written, tmp_path, monkeypatch):
    """A copy that a test may change, without an index, and an empty cache."""
    monkeypatch.setenv("L2L_CACHE", str(tmp_path / "cache"))
    folder = shutil.copytree(written[0], tmp_path / "pets" / "1.2.0")
    index.path_beside(folder, "train").unlink()
    return folder


def read(folder):
    return reader.read(folder, "train", FIELDS, HELP, folder)


def no_reading(*_):
    raise AssertionError("the records were read once more")


def test_a_source_is_sorted_by_key_and_has_unchanged_bytes(written, pets):
    found = read(pets)
    assert found.names == tuple(name for _, name, _ in written[1])
    assert found.classes == CLASSES
    for at, (path, _, _) in enumerate(written[1]):
        assert found.image(at) == Path(path).read_bytes()
    source = reader.source(found, found.names, found.labels, CLASSES, titles=("a", "b", "c"))
    assert source.keys == tuple(sorted(found.names))
    assert source.titles == ("a", "b", "c")
    for at, key in enumerate(source.keys):
        row = found.names.index(key)
        assert source.labels[at] == written[1][row][2]
        picture = Image.open(io.BytesIO(found.image(row)))
        np.testing.assert_array_equal(source.read(at), np.asarray(picture))


def test_a_source_can_be_pickled(pets):
    found = read(pets)
    source = reader.source(found, found.names, found.labels, CLASSES)
    before = source.read(3)
    there = cloudpickle.loads(cloudpickle.dumps(source))
    np.testing.assert_array_equal(there.read(3), before)


def test_the_index_is_built_once_and_stored(pets, tmp_path, monkeypatch):
    before = read(pets)
    assert len(list((tmp_path / "cache" / "index").iterdir())) == 1
    monkeypatch.setattr(index, "_read_all", no_reading)
    again = read(pets)
    assert again.names == before.names
    np.testing.assert_array_equal(again.labels, before.labels)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_index_is_built_again(damage, pets, tmp_path, caplog):
    before = read(pets)
    (path,) = (tmp_path / "cache" / "index").iterdir()
    DAMAGE[damage](path)
    again = read(pets)
    assert again.names == before.names
    np.testing.assert_array_equal(again.labels, before.labels)
    assert (f"{path} " in caplog.text) == (damage != "deleted")


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_list_of_a_tree_is_made_again(damage, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("L2L_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(image_tree, "MIN_STORED_PATHS", 1)
    monkeypatch.setattr(image_tree, "MIN_UNCHANGED_NS", -(10**12))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "1.jpg").touch()
    for _ in range(2):
        assert image_tree.list_images(tmp_path, "set") == ["set/1.jpg"]
    (path,) = (tmp_path / "cache" / "index").iterdir()
    DAMAGE[damage](path)
    assert image_tree.list_images(tmp_path, "set") == ["set/1.jpg"]
    assert (f"{path} " in caplog.text) == (damage != "deleted")


def test_a_cache_that_cannot_be_written_gives_a_warning(pets, tmp_path, monkeypatch, caplog):
    """The index and the list of a large tree are used although they cannot be stored."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("L2L_CACHE", str(tmp_path / "file"))
    assert len(read(pets).names) == 20
    monkeypatch.setattr(image_tree, "MIN_STORED_PATHS", 1)
    monkeypatch.setattr(image_tree, "MIN_UNCHANGED_NS", -(10**12))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "1.jpg").touch()
    assert image_tree.list_images(tmp_path, "set") == ["set/1.jpg"]
    assert caplog.text.count("is not kept for the next run") == 2


def test_the_index_beside_the_files_is_used_on_every_machine(written, tmp_path, monkeypatch):
    monkeypatch.setenv("L2L_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "_read_all", no_reading)
    moved = shutil.copytree(written[0], tmp_path / "elsewhere" / "1.2.0")
    assert read(moved).names == tuple(name for _, name, _ in written[1])


def test_an_index_of_other_files_is_not_used(written, pets, caplog):
    kept = index.path_beside(pets, "train")
    shutil.copy(index.path_beside(written[0], "train"), kept)
    path = sorted(pets.glob("*train*-of-*"))[1]
    rows = [(path, f"new {at}", 2) for path, _, _ in written[1][:1] for at in range(5)]
    other = convert.Target(pets.parent / "9.0.0", "pets", CLASSES, FIELDS)
    convert.convert(other, {"train": rows})
    data = next((pets.parent / "9.0.0").glob("*train*-of-*")).read_bytes()
    assert len(data) == path.stat().st_size, "sizes are multiples of 64 KiB"
    path.write_bytes(data)
    assert read(pets).names[5:10] == tuple(f"new {at}" for at in range(5))
    assert "belongs to other files and is not used" in caplog.text


def test_the_newest_version_is_found_from_each_level(tmp_path):
    for version in ("1.9.0", "1.10.0", "1.2.0", "2.0.0.incomplete"):
        (tmp_path / "pets" / version).mkdir(parents=True)
        (tmp_path / "pets" / version / "dataset_info.json").touch()
    (tmp_path / "pets" / "3.0.0").mkdir()
    newest = tmp_path / "pets" / "1.10.0"
    for root in (tmp_path, tmp_path / "pets", newest):
        assert reader.find(root, "pets") == newest
    assert reader.find(tmp_path / "pets" / "1.2.0", "pets").name == "1.2.0"
    assert reader.find(tmp_path, "cats") is None
    assert reader.find(tmp_path / "nowhere", "pets") is None


@pytest.mark.parametrize("left", [0, 10_000, 65_536, -1])
def test_a_truncated_file_is_named(pets, left):
    path = sorted(pets.glob("*train*-of-*"))[2]
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(
        BrokenImage, match=f"{re.escape(str(path))} is truncated or damaged: .*anew"
    ):
        read(pets)


def test_a_file_truncated_after_it_was_indexed_is_named(pets):
    read(pets)
    path = sorted(pets.glob("*train*-of-*"))[0]
    path.write_bytes(path.read_bytes()[:-65_536])
    with pytest.raises(BrokenImage, match=re.escape(path.name)):
        read(pets)


def test_a_file_with_fewer_records_than_declared_is_named(pets):
    about = json.loads((pets / "dataset_info.json").read_text())
    about["splits"][0]["shardLengths"][3] = "6"
    (pets / "dataset_info.json").write_text(json.dumps(about))
    with pytest.raises(BrokenImage, match=r"00003-of-00004 .* 5 records instead of the 6 that"):
        read(pets)


def test_damage_within_an_image_is_found_when_it_is_read(pets):
    path = sorted(pets.glob("*train*-of-*"))[1]
    found = read(pets)
    data = bytearray(path.read_bytes())
    at = bytes(data).index(found.image(6)[5000:5040])
    data[at : at + 40] = bytes(40)
    path.write_bytes(data)
    source = reader.source(read(pets), found.names, found.labels, CLASSES)
    assert source.fallible
    row = source.keys.index(found.names[6])
    with pytest.raises(BrokenImage, match=re.escape(found.names[6])):
        source.read(row)


def test_an_absent_file_and_an_absent_split_are_named(pets):
    with pytest.raises(DataMissing, match="its test split is missing"):
        reader.read(pets, "test", FIELDS, HELP, pets)
    path = sorted(pets.glob("*train*-of-*"))[3]
    path.unlink()
    with pytest.raises(DataMissing, match=f"1 of 4 files are missing, the first .*{path.name}"):
        read(pets)


def test_the_list_of_a_large_tree_is_stored_until_a_folder_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("L2L_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(image_tree, "MIN_STORED_PATHS", 3)
    for name in ("a/1.jpg", "a/deep/2.jpg", "b é/3.jpg", "b é/no.txt", ".hidden/4.jpg"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).touch()
    names = ["set/a/1.jpg", "set/a/deep/2.jpg", "set/b é/3.jpg"]
    assert image_tree.list_images(tmp_path, "set") == names
    assert not (tmp_path / "cache").exists(), "a folder has just changed"
    for folder in (p for p in (tmp_path / "set").rglob("*") if p.is_dir()):
        os.utime(folder, (1e9, 1e9))
    os.utime(tmp_path / "set", (1e9, 1e9))
    assert image_tree.list_images(tmp_path, "set") == names
    with monkeypatch.context() as patch:
        patch.setattr(image_tree, "list_files", no_reading)
        assert image_tree.list_images(tmp_path, "set") == names
    (tmp_path / "set" / "a" / "deep" / "5.jpg").touch()
    assert image_tree.list_images(tmp_path, "set") == [
        "set/a/1.jpg",
        "set/a/deep/2.jpg",
        "set/a/deep/5.jpg",
        names[2],
    ]
