"""Splits: four ways to choose them, disjoint, stored as files."""

from dataclasses import replace

import numpy as np
import pytest

from configs import common
from l2l_jax.data import splits
from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError, Damaged, DataMissing
from l2l_jax.types import Source
from l2l_jax.workdir import split_files
from l2l_jax.workdir.layout import Workdir
from tests.helpers import DAMAGE

CLASSES = ("cat", "dog", "bus", "tree", "sea")


OTHER = ("moon", "cat", "rain")  # of the data set that a proxy may come from


def part(name, counts, **more):
    """A Source with counts {class: images}."""
    keys = sorted(f"{name}/{c}/{i}" for c, count in counts.items() for i in range(count))
    labels = np.array([list(counts).index(key.split("/")[1]) for key in keys], np.int32)
    read = lambda at: np.zeros((4, 4, 3), np.uint8)  # noqa: E731
    return Source(tuple(keys), labels, tuple(counts), read, **more)


def sources():
    each = {"train": 6, "eval": 3}
    return {name: part(name, dict.fromkeys(CLASSES, count)) for name, count in each.items()}


def foreign():
    """The source of a proxy; its keys look like those of the training part."""
    return {"proxy": part("train", dict(zip(OTHER, (2, 9, 6), strict=True)))}


def make(given=None, **changes):
    config = common.base().split
    for key, value in changes.items():
        if isinstance(value, dict):
            config[key].update(value)
        else:
            config[key] = value
    return splits.make(config.to_dict(), sources() if given is None else given)


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


def test_draws_avoid_named_classes():
    for seed in range(10):
        found = make(forget=dict(random=1), retain=dict(classes=CLASSES[:4]), seed=seed)
        assert found["forget"].classes == ("sea",)


def test_single_images_from_a_list(tmp_path):
    listed = tmp_path / "delete.txt"
    listed.write_text("train/cat/0\ntrain/dog/3\n\n")
    found = make(forget=dict(files=str(listed)))
    assert found["forget"].keys == ("train/cat/0", "train/dog/3")
    assert found["forget_eval"].keys == found["forget"].keys, "no held-out image is listed"
    assert found["forget_eval"].part == "train"
    assert len(found["retain"].keys) == 28
    listed.write_text("train/cat/0\neval/cat/1\n")
    assert make(forget=dict(files=str(listed)))["forget_eval"].keys == ("eval/cat/1",)


def test_listed_images_that_are_held_out_give_a_warning_or_an_error(tmp_path, caplog):
    listed = tmp_path / "delete.txt"
    listed.write_text("train/cat/0\ntrain/cat/1\ntrain/cat/2\neval/cat/1\n")
    found = make(forget=dict(files=str(listed)), images_per_class=2)
    assert len(found["forget"].keys) == 3, "the limit per class does not apply to a list"
    assert "1 of the 4 images" in caplog.text
    assert "not trained on" in caplog.text
    listed.write_text("eval/cat/1\n")
    with pytest.raises(ConfigError, match=r"1 of the 1 images .* are held out: nothing can be"):
        make(forget=dict(files=str(listed)))


def test_a_list_of_everything_is_refused(tmp_path):
    listed, given = tmp_path / "list.txt", sources()
    listed.write_text("\n".join(given["train"].keys))
    with pytest.raises(ConfigError, match=r"lists 30 images to forget, and no training image"):
        make(given, forget=dict(files=str(listed)))
    listed.write_text("\n".join(given["train"].keys[:29]))
    with pytest.raises(ConfigError, match=r"lists 29 images to forget, and only 1 are in retain"):
        make(given, forget=dict(files=str(listed)))


def test_a_list_takes_its_images_out_of_classes_to_keep(tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("train/cat/0\ntrain/dog/1\n")
    found = make(forget=dict(files=str(listed)), retain=dict(classes=("cat", "bus")))
    assert found["forget"].keys == ("train/cat/0", "train/dog/1")
    assert "train/cat/0" not in found["retain"].keys
    assert len(found["retain"].keys) == 11
    (tmp_path / "keep.txt").write_text("train/cat/0\ntrain/cat/1\ntrain/bus/1\n")
    with pytest.raises(ConfigError, match="share 1 images"):
        make(forget=dict(files=str(listed)), retain=dict(files=str(tmp_path / "keep.txt")))


def test_keys_that_no_image_has_can_be_left_out(tmp_path, caplog):
    listed = tmp_path / "list.txt"
    listed.write_text("train/cat/1\ntrain/cat/77\n")
    with pytest.raises(ConfigError, match=r"split\.missing=skip leaves them out"):
        make(forget=dict(files=str(listed)))
    found = make(forget=dict(files=str(listed)), missing="skip")
    assert found["forget"].keys == ("train/cat/1",)
    assert "such as train/cat/77; they are left out" in caplog.text
    listed.write_text("train/cat/77\n")
    with pytest.raises(ConfigError, match="lists 1 images that are not in the data set"):
        make(forget=dict(files=str(listed)), missing="skip")


def test_limits_are_seeded_and_per_class():
    found = make(forget=dict(classes=("cat", "dog")), images_per_class=2, eval_images_per_class=1)
    assert len(found["forget"].keys) == 4
    assert len(found["retain_eval"].keys) == 3
    again = make(forget=dict(classes=("cat", "dog")), images_per_class=2, eval_images_per_class=1)
    assert found["retain"].keys == again["retain"].keys
    other = make(forget=dict(classes=("cat", "dog")), images_per_class=2, seed=5)
    assert found["retain"].keys != other["retain"].keys


def per_class(split):
    return {name: sum(f"/{name}/" in key for key in split.keys) for name in split.classes}


def test_a_side_has_limits_of_its_own():
    sides = dict(
        forget=dict(classes=("cat", "dog"), images_per_class=5),
        proxy=dict(classes=("sea",), images_per_class=3),
    )
    found = make(**sides, images_per_class=2, eval_images_per_class=1)
    assert per_class(found["forget"]) == {"cat": 5, "dog": 5}
    assert per_class(found["retain"]) == {"bus": 2, "tree": 2}, "it has no limit of its own"
    assert per_class(found["proxy"]) == {"sea": 3}
    assert per_class(found["forget_eval"]) == {"cat": 1, "dog": 1}, (
        "a side's own limit applies to training only"
    )


def test_images_for_calibration_are_evaluated_on_no_side():
    sides = dict(forget=dict(classes=("cat", "dog")))
    whole, found, most = (make(**sides, calibration=count) for count in (0, 1, 1000))
    apart = found["calibration"]
    assert "calibration" not in whole
    assert (apart.part, per_class(apart)) == ("eval", dict.fromkeys(CLASSES, 1))
    assert most["calibration"].keys == apart.keys, "at most half of the three images of a class"
    held_out = [set(found[f"{side}_eval"].keys) for side in ("forget", "retain")]
    assert not set(apart.keys) & set.union(*held_out)
    assert set(apart.keys).union(*held_out) == {
        key for side in ("forget", "retain") for key in whole[f"{side}_eval"].keys
    }
    assert all(found[side].keys == whole[side].keys for side in ("forget", "retain"))
    assert make(**sides, calibration=1, seed=5)["calibration"].keys != apart.keys


def test_a_list_longer_than_the_retain_side_is_refused(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("".join(f"train/{name}/{i}\n" for name in CLASSES[:3] for i in range(6)))
    with pytest.raises(ConfigError, match="lists 18 images to forget, and only 12 are in retain"):
        make(forget=dict(files=str(path)))
    make(forget=dict(classes=CLASSES[:3]))


def test_a_total_is_drawn_evenly_over_the_classes():
    given = sources() | {"train": part("train", dict(cat=6, dog=6, bus=1, tree=3, sea=6))}
    draw = dict(forget=dict(classes=("cat",)), retain=dict(images=10, rest=True))
    found, again = make(given, **draw)["retain"], make(given, **draw)["retain"]
    assert per_class(found) == {"dog": 3, "bus": 1, "tree": 3, "sea": 3}, (
        "small classes are taken completely"
    )
    assert found.keys == again.keys
    assert found.keys != make(given, **draw, seed=1)["retain"].keys
    draw["retain"]["images"] = 6
    some = per_class(make(given, **draw)["retain"])
    assert sum(some.values()) == 6
    assert min(some.values()) == 1
    assert max(some.values()) == 2
    draw["retain"].update(images=5, images_per_class=2)
    assert sum(per_class(make(given, **draw)["retain"]).values()) == 5
    assert len(make(given, **draw)["retain_eval"].keys) == 12, "held-out images are not limited"
    with pytest.raises(ConfigError, match=r"split\.retain\.images=17, but only 16 images"):
        make(given, forget=dict(classes=("cat",)), retain=dict(images=17))


def test_a_side_may_limit_its_own_list(tmp_path):
    (tmp_path / "a.txt").write_text("train/cat/0\ntrain/cat/1\ntrain/dog/2\n")
    found = make(forget=dict(files=str(tmp_path / "a.txt"), images=2), images_per_class=1)
    assert per_class(found["forget"]) == {"cat": 1, "dog": 1}


def test_a_proxy_from_another_data_set(tmp_path):
    given = sources() | foreign()
    found = make(given, forget=dict(classes=("cat",)), retain=dict(classes=("dog",)))
    assert set(found) == {"forget", "forget_eval", "proxy", "retain", "retain_eval"}
    assert per_class(found["proxy"]) == {"moon": 2, "cat": 9, "rain": 6}, (
        "without a selection: all of it"
    )
    assert found["proxy"].part == "proxy"
    assert found["forget"].classes == ("cat",), "not the class of the same name of the proxy"
    found = make(given, forget=dict(classes=("cat",)))
    assert len(found["retain"].keys) == 24, "the rest does not include the proxy"
    found = make(given, forget=dict(classes=("cat",)), proxy=dict(classes=("rain", "cat")))
    assert found["proxy"].classes == ("cat", "rain")
    found = make(given, forget=dict(random=5), proxy=dict(random=2, images=7))
    assert len(found["forget"].classes) == 5, "each data set has its own draw"
    assert len(found["proxy"].classes) == 2
    assert len(found["proxy"].keys) == 7
    (tmp_path / "a.txt").write_text("train/moon/0\n")
    found = make(given, forget=dict(classes=("cat",)), proxy=dict(files=str(tmp_path / "a.txt")))
    assert found["proxy"].keys == ("train/moon/0",)
    with pytest.raises(ConfigError, match=r"No class called 'bus'.*split\.proxy\.classes"):
        make(given, proxy=dict(classes=("bus",)))
    with pytest.raises(ConfigError, match="only 3 classes are left"):
        make(given, proxy=dict(random=4))


def test_a_proxy_from_another_data_set_is_kept_as_a_file(tmp_path):
    given = sources() | foreign()
    found = make(given, forget=dict(classes=("cat",)), proxy=dict(images=4))
    split_files.save(tmp_path, found)
    back = split_files.load(tmp_path, given, dict)
    assert {k: v.digest for k, v in back.items()} == {k: v.digest for k, v in found.items()}
    assert np.array_equal(back["proxy"].indices, found["proxy"].indices)
    assert files.read_json(tmp_path / "splits" / "proxy.json")["part"] == "proxy"


def test_rows_of_training():
    found = make(sources() | foreign(), forget=dict(classes=("cat",)), proxy=dict(images=4))
    assert splits.training_rows(found, "train").tolist() == list(range(30))
    assert splits.training_rows(found, "proxy").tolist() == found["proxy"].indices.tolist()
    assert splits.training_rows(found, "eval").tolist() == []


def test_classes_may_be_named_by_their_titles():
    titles = ("tabby", "crane", "school bus", "crane", "open sea")
    given = {name: replace(source, titles=titles) for name, source in sources().items()}
    found = make(given, forget=dict(classes=("tabby", "sea", 2)))
    assert set(found["forget"].classes) == {"cat", "sea", "bus"}
    with pytest.raises(
        ConfigError, match=r"'crane', .* the title of 2 classes: dog, tree\. Use the name"
    ):
        make(given, forget=dict(classes=("crane",)))
    with pytest.raises(ConfigError, match=r"Did you mean 'school bus'\?.* bus \(school bus\)"):
        make(given, forget=dict(classes=("school buss",)))
    with pytest.raises(ConfigError, match=r"Did you mean 'tree'\?"):
        make(given, forget=dict(classes=("treee",)))
    many = {name: part(name, {f"class{i}": 1 for i in range(50)}) for name in ("train", "eval")}
    with pytest.raises(ConfigError, match=r"class39 and 10 more\."):
        make(many, forget=dict(classes=("x",)))


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
    (tmp_path / "b.txt").write_text("train/Cat/1\n")
    message = r"Did you mean 'train/cat/1' for 'train/Cat/1'\? A key looks like 'train/bus/0'"
    with pytest.raises(ConfigError, match=message):
        make(forget=dict(files=str(tmp_path / "b.txt")))
    with pytest.raises(DataMissing, match="one a line"):
        make(forget=dict(files=str(tmp_path / "c.txt")))


def load(folder, **sides):
    """The splits of a workdir, whose config chose these sides."""
    return split_files.load(folder, sources(), lambda: make(**sides))


def test_splits_are_files_with_digests(tmp_path):
    found, folder = make(forget=dict(classes=("cat",))), tmp_path / "splits"
    split_files.save(tmp_path, found)
    back = load(tmp_path)
    assert list(back) == list(found), "images of several splits are in the order of the splits"
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
        load(tmp_path)
    files.write_json(folder / "forget.json", record | {"keys": ["train/cat/99"]})
    with pytest.raises(ConfigError, match="no longer has"):
        load(tmp_path)


CATS = dict(forget=dict(classes=("cat",)), proxy=dict(classes=("dog",)))


@pytest.mark.parametrize("name", ["forget", "forget_eval", "retain", "retain_eval", "proxy"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_missing_or_damaged_split_is_made_again(damage, name, tmp_path, caplog):
    found, path = make(**CATS), tmp_path / "splits" / f"{name}.json"
    split_files.save(tmp_path, found)
    DAMAGE[damage](path)
    back = load(tmp_path, **CATS)
    assert {k: v.keys for k, v in back.items()} == {k: v.keys for k, v in found.items()}
    assert f"{path} " in caplog.text
    assert caplog.text.count("It is made again from the config") == 1
    split_files.save(tmp_path, back)
    caplog.clear()
    assert load(tmp_path, **CATS)[name].keys == found[name].keys
    assert not caplog.text


def test_a_missing_split_that_would_be_another_is_an_error(tmp_path):
    split_files.save(tmp_path, make(**CATS))
    (tmp_path / "splits" / "forget.json").unlink()
    with pytest.raises(
        ConfigError, match=r"forget\.json is missing\. The config does not give the"
    ):
        load(tmp_path, forget=dict(classes=("dog",)))


def test_a_missing_split_is_named_where_only_digests_are_read(tmp_path):
    """As for a reference, or a run whose first phases are reused."""
    split_files.save(tmp_path, make(**CATS))
    assert len(Workdir(tmp_path).read_splits()) == 5
    (tmp_path / "splits" / "retain.json").unlink()
    with pytest.raises(Damaged, match=r"retain\.json is missing\. Continue the run"):
        Workdir(tmp_path).read_splits()


def test_missing_splits_of_a_run_that_has_begun_are_an_error(tmp_path):
    split_files.save(tmp_path, make(**CATS))
    assert split_files.exist(tmp_path)
    for path in (tmp_path / "splits").iterdir():
        path.unlink()
    assert not split_files.exist(tmp_path), "no phase has begun"
    (tmp_path / "checkpoints" / "pretrain" / "2").mkdir(parents=True)
    with pytest.raises(ConfigError, match="splits is missing or empty"):
        split_files.exist(tmp_path)
    (tmp_path / "splits").rmdir()
    with pytest.raises(ConfigError, match="splits is missing or empty"):
        split_files.exist(tmp_path)


def test_edited_splits_that_share_images_are_refused(tmp_path):
    """All digests fit: somebody has computed them again."""
    found = make(**CATS)
    for part in ("", "_eval"):
        both, folder = found["retain" + part], tmp_path / f"a{part}"
        row = int(found["forget" + part].indices[0])
        wider = splits.pick(both.name, both.part, sources()[both.part], [*both.indices, row])
        split_files.save(folder, found | {both.name: wider})
        with pytest.raises(ConfigError, match=f"retain{part}.json share 1 images, such as"):
            load(folder)


def test_a_split_of_another_run_is_refused(tmp_path):
    split_files.save(tmp_path / "a", make(**CATS))
    split_files.save(tmp_path / "b", make(forget=dict(classes=("dog",))))
    there, here = (tmp_path / run / "splits" / "retain.json" for run in "ba")
    here.write_bytes(there.read_bytes())
    with pytest.raises(ConfigError, match="belongs to another run than the files beside it"):
        load(tmp_path / "a")
