"""Splits: chosen in four ways, disjoint, kept as files."""

import numpy as np
import pytest

from configs import common
from l2l_jax.lib import files, splitfiles, splits
from l2l_jax.lib.errors import ConfigError, DataMissing
from l2l_jax.types import Source

CLASSES = ("cat", "dog", "bus", "tree", "sea")


def sources():
    def part(name, each):
        keys = sorted(f"{name}/{c}/{i}" for c in CLASSES for i in range(each))
        labels = np.array([CLASSES.index(key.split("/")[1]) for key in keys], np.int32)
        return Source(tuple(keys), labels, CLASSES, lambda at: np.zeros((4, 4, 3), np.uint8))

    return {"train": part("train", 6), "eval": part("eval", 3)}


def make(**changes):
    config = common.base().split
    for key, value in changes.items():
        if isinstance(value, dict):
            config[key].update(value)
        else:
            config[key] = value
    return splits.make(config.to_dict(), sources())


def classes_of(found):
    return {name: set(split.classes) for name, split in found.items()}


def test_retain_is_the_rest():
    found = make(forget=dict(classes=("cat", 1)))
    rest = {"bus", "tree", "sea"}
    assert classes_of(found) == {
        "forget": {"cat", "dog"}, "forget_eval": {"cat", "dog"},
        "retain": rest, "retain_eval": rest,
    }  # fmt: skip
    assert len(found["forget"].keys) == 12
    assert len(found["retain_eval"].keys) == 9


def test_a_proxy_is_trained_on_and_never_evaluated():
    found = make(
        forget=dict(classes=("cat",)), retain=dict(classes=("dog",)), proxy=dict(rest=True)
    )
    assert set(found) == {"forget", "forget_eval", "proxy", "retain", "retain_eval"}
    assert set(found["proxy"].classes) == {"bus", "tree", "sea"}
    assert found["retain_eval"].classes == ("dog",)


def test_draws_are_seeded_and_disjoint():
    draw = dict(forget=dict(random=2), retain=dict(random=2))
    found, again, other = make(**draw), make(**draw), make(**draw, seed=1)
    assert classes_of(found) == classes_of(again) != classes_of(other)
    assert not set(found["forget"].classes) & set(found["retain"].classes)
    with pytest.raises(ConfigError, match="only 5 classes are left"):
        make(forget=dict(random=6))


def test_draws_avoid_what_was_listed():
    for seed in range(10):
        found = make(forget=dict(random=1), retain=dict(classes=CLASSES[:4]), seed=seed)
        assert found["forget"].classes == ("sea",)


def test_single_images_by_a_list(tmp_path):
    listed = tmp_path / "delete.txt"
    listed.write_text("train/cat/0\ntrain/dog/3\n\n")
    found = make(forget=dict(files=str(listed)))
    assert found["forget"].keys == ("train/cat/0", "train/dog/3")
    assert found["forget_eval"].keys == found["forget"].keys, "no held-out one was listed"
    assert found["forget_eval"].part == "train"
    assert len(found["retain"].keys) == 28
    listed.write_text("train/cat/0\neval/cat/1\n")
    assert make(forget=dict(files=str(listed)))["forget_eval"].keys == ("eval/cat/1",)


def test_what_is_listed_is_trained_on_or_it_is_said(tmp_path, caplog):
    listed = tmp_path / "delete.txt"
    listed.write_text("train/cat/0\ntrain/cat/1\ntrain/cat/2\neval/cat/1\n")
    found = make(forget=dict(files=str(listed)), images_per_class=2)
    assert len(found["forget"].keys) == 3, "a limit for classes cuts no list"
    assert "1 of the 4 images" in caplog.text
    assert "not trained on" in caplog.text
    listed.write_text("eval/cat/1\n")
    with pytest.raises(ConfigError, match=r"1 of the 1 images .* are held out: nothing can be"):
        make(forget=dict(files=str(listed)))


def test_limits_are_seeded_and_for_each_class():
    found = make(forget=dict(classes=("cat", "dog")), images_per_class=2, eval_images_per_class=1)
    assert len(found["forget"].keys) == 4
    assert len(found["retain_eval"].keys) == 3
    again = make(forget=dict(classes=("cat", "dog")), images_per_class=2, eval_images_per_class=1)
    assert found["retain"].keys == again["retain"].keys
    other = make(forget=dict(classes=("cat", "dog")), images_per_class=2, seed=5)
    assert found["retain"].keys != other["retain"].keys


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(forget=dict(classes=("cat", "dog")), retain=dict(classes=("dog",))),
            "12 images|6 images",
        ),
        (dict(forget=dict(classes=("cta",))), "Did you mean 'cat'"),
        (dict(forget=dict(classes=(9,))), "No class called 9"),
        (dict(forget=dict(classes=("cat",), random=1)), "both classes and random; choose one"),
        (dict(forget=dict(rest=True), proxy=dict(rest=True)), "Only one side can be the rest"),
    ],
)
def test_bad_choices(changes, message):
    with pytest.raises(ConfigError, match=message):
        make(**changes)


def test_overlapping_lists_name_what_they_share(tmp_path):
    (tmp_path / "a.txt").write_text("train/cat/0\ntrain/cat/1\n")
    (tmp_path / "b.txt").write_text("train/cat/1\n")
    with pytest.raises(ConfigError, match=r"share 1 images of cat \(first: train/cat/1\)"):
        make(forget=dict(files=str(tmp_path / "a.txt")), retain=dict(files=str(tmp_path / "b.txt")))
    (tmp_path / "b.txt").write_text("cat/1\n")
    with pytest.raises(ConfigError, match=r"key looks like 'train/bus/0'"):
        make(forget=dict(files=str(tmp_path / "b.txt")))
    with pytest.raises(DataMissing, match="one a line"):
        make(forget=dict(files=str(tmp_path / "c.txt")))


def test_splits_are_files_with_digests(tmp_path):
    found, folder = make(forget=dict(classes=("cat",))), tmp_path / "splits"
    splitfiles.save(folder, found)
    back = splitfiles.load(folder, sources())
    assert {k: v.keys for k, v in back.items()} == {k: v.keys for k, v in found.items()}
    assert {k: v.digest for k, v in back.items()} == {k: v.digest for k, v in found.items()}
    assert all(np.array_equal(back[k].indices, found[k].indices) for k in found)
    record = files.read_json(folder / "forget.json")
    assert record["count"] == 6
    assert record["keys"] == sorted(record["keys"])
    reused = make(forget=dict(files=str(folder / "forget.json")))
    assert reused["forget"].digest == found["forget"].digest, "a split can be given as a list"

    files.write_json(folder / "forget.json", record | {"keys": record["keys"][1:]})
    with pytest.raises(ConfigError, match="does not match its digest"):
        splitfiles.load(folder, sources())
    files.write_json(folder / "forget.json", record | {"keys": ["train/cat/99"]})
    with pytest.raises(ConfigError, match="no longer has"):
        splitfiles.load(folder, sources())
