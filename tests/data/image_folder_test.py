"""Folders of images: classes, parts, broken files."""

import logging
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from l2l_jax.data import image_folder
from l2l_jax.datasets import folder, imagenet
from l2l_jax.lib.errors import BrokenImage, ConfigError, DataMissing


def fill(root, *names, size=(20, 16)):
    for at, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (at % 256, 0, 0)).save(path)


@pytest.fixture
def pets(tmp_path):
    """Ten cats and twenty dogs, the dogs one level deeper, beside files that are no images."""
    fill(tmp_path, *[f"cats/{i:02d}.jpg" for i in range(10)])
    fill(tmp_path, *[f"dogs/old/{i:02d}.png" for i in range(20)])
    (tmp_path / "cats" / "notes.txt").write_text("x")
    (tmp_path / "cats" / ".hidden.jpg").write_bytes(b"x")
    (tmp_path / ".thumbnails").mkdir()
    (tmp_path / ".thumbnails" / "1.jpg").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "cats" / "circle").symlink_to(tmp_path / "cats")
    return tmp_path


def test_classes_are_sub_folders_and_a_fraction_is_held_out(pets):
    parts = {p: folder.load(p, root=str(pets), eval_fraction=0.2) for p in ("train", "eval")}
    train, held = parts["train"], parts["eval"]
    assert train.classes == held.classes == ("cats", "dogs")
    assert (len(train.keys), len(held.keys)) == (24, 6)
    assert np.bincount(held.labels).tolist() == [2, 4], "of each class"
    assert not set(train.keys) & set(held.keys)
    assert "dogs/old/00.png" in {*train.keys, *held.keys}
    assert train.read(0).shape == (16, 20, 3)


def test_held_out_images_stay_held_out_when_images_are_added(pets):
    before = set(folder.load("eval", root=str(pets), eval_fraction=0.5).keys)
    fill(pets, "birds/1.jpg", "birds/2.jpg")
    after = set(folder.load("eval", root=str(pets), eval_fraction=0.5).keys)
    assert before < after


def test_parts_by_folder(tmp_path):
    fill(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/a/2.jpg")
    train = folder.load("train", root=str(tmp_path), train="train", eval="val")
    held = folder.load("eval", root=str(tmp_path), train="train", eval="val")
    assert train.keys == ("train/a/1.jpg", "train/b/1.jpg")
    assert held.keys == ("val/a/2.jpg",)
    assert held.classes == ("a", "b")
    fill(tmp_path, "val/c/1.jpg")
    with pytest.raises(ConfigError, match=r"classes that .*train lacks: \['c'\]"):
        folder.load("eval", root=str(tmp_path), train="train", eval="val")


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        (dict(), ConfigError, r"--config\.data\.args\.root=FOLDER"),
        (dict(root="{}/nowhere"), DataMissing, "holds: .*cats, dogs"),
        (dict(root="{}/empty"), DataMissing, "no sub-folders"),
        (dict(root="{}", train="cats"), ConfigError, "go together"),
        (dict(root="{}", eval_fraction=1.5), ConfigError, "between 0 and 1"),
    ],
)
def test_wrong_folders(pets, args, error, message):
    args = {k: v.format(pets) if isinstance(v, str) else v for k, v in args.items()}
    with pytest.raises(error, match=message):
        folder.load("train", **args)


def test_a_folder_without_images(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataMissing, match="no images"):
        folder.load("train", root=str(tmp_path))


def test_broken_files_are_counted_and_named_and_stop_the_run_or_are_skipped(
    pets, caplog, monkeypatch
):
    monkeypatch.setattr(image_folder, "BLOCK", 4)  # so that there are several blocks
    monkeypatch.setattr(image_folder, "LOG_SECONDS", -1)
    (pets / "cats" / "03.jpg").write_bytes(b"not an image")
    whole = (pets / "dogs" / "old" / "05.png").read_bytes()
    (pets / "dogs" / "old" / "05.png").write_bytes(whole[:60])
    source = folder.load("train", root=str(pets), eval_fraction=0.01)
    rows = np.arange(len(source.keys))
    with pytest.raises(BrokenImage, match="2 of the 30 images of forget cannot be read") as error:
        image_folder.drop_unreadable(source, "forget", rows, "stop")
    assert "cats/03.jpg" in str(error.value)
    assert "--config.data.broken=skip" in str(error.value)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        rows_left, reasons, digests = image_folder.drop_unreadable(source, "forget", rows, "skip")
    assert "checked 12 of 30 images" in caplog.text
    assert "checked 30 of 30 images" in caplog.text
    assert len(rows_left) == len(digests) == 28
    assert len(reasons) == 2
    assert "dogs/old/05.png" in caplog.text
    assert "2 of the 30 images" in caplog.text
    with pytest.raises(ConfigError, match="'stop' or 'skip'"):
        image_folder.drop_unreadable(source, "forget", rows, "ignore")


def keys_of(root, **args):
    return {part: folder.load(part, root=str(root), **args).keys for part in ("train", "eval")}


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("cats/loop", ".."),  # the whole data set once more, as cats
        ("cats/loop", "."),
        ("cats/friends", "../dogs"),
        ("kitties", "cats"),  # a class under another name
        ("cats/up", "../.."),
    ],
)
def test_links_that_lead_back_into_the_data_set_are_not_followed(link, target, tmp_path, caplog):
    root = tmp_path / "pets"
    fill(root, *[f"{name}/{i}.png" for name in ("cats", "dogs") for i in range(4)])
    before = keys_of(root, eval_fraction=0.5)
    (root / link).symlink_to(target)
    assert keys_of(root, eval_fraction=0.5) == before
    assert f"{root / link} is a link to" in caplog.text


def test_a_folder_elsewhere_is_read_once(tmp_path, caplog):
    root = tmp_path / "pets"
    fill(tmp_path / "disk", *[f"{i}.png" for i in range(4)])
    fill(root, *[f"dogs/{i}.png" for i in range(4)])
    for name in ("cats", "kitties"):
        (root / name).symlink_to(tmp_path / "disk")
    (root / "dogs" / "more").symlink_to("../cats")
    source = folder.load("train", root=str(root), eval_fraction=0.25)
    assert source.classes == ("cats", "dogs")
    assert len(source.keys) == 6
    assert "kitties is read at another place already" in caplog.text


def test_links_that_lead_nowhere_are_named(tmp_path, caplog):
    fill(tmp_path, *[f"{name}/{i}.png" for name in ("cats", "dogs") for i in range(2)])
    before = keys_of(tmp_path, eval_fraction=0.5)
    for link, target in (("birds", "nowhere"), ("cats/a", "b"), ("cats/b", "a")):
        (tmp_path / link).symlink_to(target)
    assert keys_of(tmp_path, eval_fraction=0.5) == before
    for link in ("birds", "cats/a", "cats/b"):
        assert f"{tmp_path / link} is a link that leads nowhere" in caplog.text


def test_a_link_to_a_hidden_folder_inside_is_followed(tmp_path):
    fill(tmp_path, ".store/cats/1.png", ".store/cats/2.png", "dogs/1.png", "dogs/2.png")
    (tmp_path / "cats").symlink_to(".store/cats")
    source = folder.load("train", root=str(tmp_path), eval_fraction=0.5)
    assert source.classes == ("cats", "dogs")


def test_train_and_eval_share_no_folder(tmp_path):
    fill(tmp_path, "train/a/1.jpg", "val/b/2.jpg", "val/a/2.jpg", "train/b/2.jpg")
    (tmp_path / "same").symlink_to("train")
    for names in (("train", "same"), ("train", "train/a"), (".", "val")):
        with pytest.raises(ConfigError, match="one folder, or one is inside the other"):
            folder.load("train", root=str(tmp_path), train=names[0], eval=names[1])
    (tmp_path / "val" / "a" / "more").symlink_to("../../train/a")
    held = folder.load("eval", root=str(tmp_path), train="train", eval="val")
    assert held.keys == ("val/a/2.jpg", "val/b/2.jpg"), "no image is on both parts"


@pytest.mark.parametrize("name", [b"cats/caf\xe9.png", b"caf\xe9/1.png", b"cats/a\nb.png"])
def test_names_that_no_list_can_hold_are_refused(name, tmp_path):
    fill(tmp_path, "cats/1.png")
    path = os.path.join(os.fsencode(tmp_path), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    shutil.copy(tmp_path / "cats" / "1.png", path)
    with pytest.raises(ConfigError, match=r"(no UTF-8 text|has a line break)\. Rename"):
        folder.load("train", root=str(tmp_path))


def test_a_folder_that_cannot_be_read_stops_the_run(tmp_path, monkeypatch):
    fill(tmp_path, "cats/1.png", "cats/old/2.png", "dogs/3.png")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("old"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataMissing, match=r"cats/old cannot be read: Permission denied\. Correct"):
        folder.load("train", root=str(tmp_path))


def test_images_beside_the_class_folders_are_named(tmp_path, caplog):
    fill(tmp_path, "cats/1.png", "cats/2.png", "loose.JPG")
    assert len(keys_of(tmp_path, eval_fraction=0.5)["train"]) == 1
    assert "1 images directly in" in caplog.text
    assert "loose.JPG, belong to no class" in caplog.text


def test_imagenet_says_what_is_missing_and_reads_what_is_there(tmp_path):
    with pytest.raises(DataMissing) as error:
        imagenet.load("train", root=str(tmp_path))
    for words in ("train/ and val/ are missing", "image-net.org", "L2L_DATA", ":smoke"):
        assert words in str(error.value)
    fill(tmp_path, "train/n01/a.JPEG", "train/n02/b.JPEG", "val/n01/c.JPEG")
    assert imagenet.load("train", root=str(tmp_path)).classes == ("n01", "n02")
    assert imagenet.load("eval", root=str(tmp_path)).keys == ("val/n01/c.JPEG",)
