"""Which images are measured: held-out ones, and training images of the same kind and number."""

import numpy as np
import pytest

from l2l_jax.data import splits
from l2l_jax.engine.evaluated import describe, evaluated_sets
from l2l_jax.types import Source

CLASSES = ("cat", "dog", "cow")


def source(part, per_class):
    labels = np.repeat(np.arange(3), per_class).astype(np.int32)
    keys = tuple(f"{part}/{CLASSES[label]}/{at:03d}" for at, label in enumerate(labels))
    keys = tuple(sorted(keys))
    labels = np.array([CLASSES.index(key.split("/")[1]) for key in keys], np.int32)
    return Source(keys, labels, CLASSES, lambda at: np.zeros((4, 4, 3), np.uint8))


SOURCES = {"train": source("train", 40), "eval": source("eval", 10)}


def pick(name, part, rule):
    rows = [row for row, key in enumerate(SOURCES[part].keys) if rule(key)]
    return splits.pick(name, part, SOURCES[part], np.array(rows))


def by_classes():
    """Forget cats and dogs."""
    chosen = {}
    for part, end in splits.PARTS.items():
        chosen[f"forget{end}"] = pick(f"forget{end}", part, lambda key: "/cow/" not in key)
        chosen[f"retain{end}"] = pick(f"retain{end}", part, lambda key: "/cow/" in key)
    return chosen


def by_files(count=6):
    """Forget the first dogs: a list of training images."""
    listed = [key for key in SOURCES["train"].keys if "/dog/" in key][:count]
    chosen = {
        "forget": pick("forget", "train", lambda key: key in listed),
        "retain": pick("retain", "train", lambda key: key not in listed),
        "retain_eval": pick("retain_eval", "eval", lambda key: True),
    }
    return chosen | {"forget_eval": chosen["forget"]}


def classes_of(split):
    return sorted(key.split("/")[1] for key in split.keys)


def test_the_images_asked_for_stand_beside_as_many_held_out_ones():
    chosen = by_classes()
    found = evaluated_sets(chosen, SOURCES, 0)
    assert list(found) == ["retain", "forget", "forget_train"]
    assert (found["retain"], found["forget"]) == (chosen["retain_eval"], chosen["forget_eval"])
    assert len(found["forget_train"].keys) == len(found["forget"].keys) == 20
    assert set(found["forget_train"].keys) < set(chosen["forget"].keys)
    assert classes_of(found["forget_train"]) == classes_of(found["forget"])
    other = evaluated_sets(chosen, SOURCES, 1)["forget_train"]
    assert found["forget_train"].keys != other.keys, "drawn with the seed"
    assert found["forget_train"].keys == evaluated_sets(chosen, SOURCES, 0)["forget_train"].keys


def test_a_list_of_files_is_compared_with_training_images():
    chosen = by_files()
    found = evaluated_sets(chosen, SOURCES, 0)
    assert list(found) == ["retain", "forget", "retain_train"]
    assert found["forget"].keys == chosen["forget"].keys
    assert len(found["retain_train"].keys) == 6
    assert classes_of(found["retain_train"]) == ["dog"] * 6, "of the class that was listed"
    assert not set(found["retain_train"].keys) & set(chosen["forget"].keys)


def test_a_class_that_was_forgotten_completely_is_replaced_by_others():
    chosen = by_files(count=40)
    found = evaluated_sets(chosen, SOURCES, 0)["retain_train"]
    assert len(found.keys) == 40
    assert "dog" not in classes_of(found)


def test_fewer_training_images_than_held_out_ones_are_all_measured():
    chosen = by_classes()
    few = splits.pick("forget", "train", SOURCES["train"], chosen["forget"].indices[:5])
    found = evaluated_sets(chosen | {"forget": few}, SOURCES, 0)
    assert found["forget_train"].keys == few.keys


@pytest.mark.parametrize("missing", [{"forget"}, {"forget_eval"}, {"forget", "forget_eval"}])
def test_without_a_forget_side_there_is_no_set_of_training_images(missing):
    chosen = {name: split for name, split in by_classes().items() if name not in missing}
    assert not [side for side in evaluated_sets(chosen, SOURCES, 0) if side.endswith("_train")]


def test_what_each_set_is():
    chosen = by_classes()
    about = describe(evaluated_sets(chosen, SOURCES, 0), chosen, {"forget", "retain"})
    train = {k: about["forget_train"][k] for k in ("part", "images", "of", "trained_on")}
    assert train == {"part": "train", "images": 20, "of": 80, "trained_on": True}
    assert about["forget"]["trained_on"] is False, "held out"
    chosen = by_files()
    about = describe(evaluated_sets(chosen, SOURCES, 0), chosen, {"retain"})
    assert about["forget"]["trained_on"] is False, "the run spared them"
    assert about["retain_train"]["trained_on"] is True
    assert about["forget"]["part"] == "train"
