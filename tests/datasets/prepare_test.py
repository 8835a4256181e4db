"""launch/prepare: reports what is missing, and converts with restarts."""

import dataclasses
import hashlib
import importlib.util
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from l2l_jax.data import images
from l2l_jax.data.records import convert, index, prepare_cli, reader, writer
from l2l_jax.datasets import coco, imagenet, places365
from l2l_jax.lib import files
from l2l_jax.lib.errors import BrokenImage, ConfigError, NotSaved
from tests.datasets import miniature
from tests.helpers import ROOT

SETS = {"imagenet": imagenet, "places365": places365, "coco": coco}
STUCK = """
import sys, time
from pathlib import Path
from l2l_jax.data.records import convert, reader
from l2l_jax.lib import bounded
folder, pictures = map(Path, sys.argv[1:])
rows = [(str(pictures / f"{at}.jpg"), f"{at}.jpg", 0) for at in range(10)]
read = bounded.read
bounded.read = lambda path, most: time.sleep(600) if "7.jpg" in str(path) else read(path, most)
target = convert.Target(folder, "pets", ("cat", "dog"), reader.Fields("name"), per_file=2)
convert.convert(target, {"train": rows})
"""

COMMAND = """
import runpy
sys.argv[0] = "launch/prepare/coco.py"
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def facts(name, **changes):
    path = ROOT / "launch" / "prepare" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"prepare_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dataclasses.replace(module.FACTS, **changes)


@pytest.fixture(params=SETS)
def made(request, tmp_path):
    """(name, module, root of a small tree that a test may change)."""
    module = SETS[request.param]
    first = module.write_synthetic(9) if module is coco else module.write_synthetic(9, ())
    return request.param, module, shutil.copytree(first, tmp_path / request.param)


@pytest.fixture
def pictures(tmp_path):
    """(target with two images per file, rows of ten images)."""
    rows = []
    for at in range(10):
        path = tmp_path / "pictures" / f"{at}.jpg"
        miniature.put(path, (at * 20, 90, 30))
        rows.append((str(path), path.name, at % 2))
    folder = tmp_path / "out" / "pets" / "1.0.0"
    target = convert.Target(folder, "pets", ("cat", "dog"), reader.Fields("name"), per_file=2)
    return target, rows


def files_of(target):
    return {
        p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in target.folder.glob("pets*-of-*")
    }


def test_checking_converting_and_checking_the_records(made, tmp_path, capsys, monkeypatch):
    name, module, root = made
    about, out = facts(name), tmp_path / "out"
    words = [str(root), "--convert", str(out), "--workers", "1", "--per-file", "4"]
    assert prepare_cli.main(about, words) == 0
    said = capsys.readouterr().out
    held = len(module.load("train", root=str(root)).keys)
    count = module.COUNTS["train"]
    assert f"train: {held} images" in said
    assert f"the whole set has {count:,} images: {count - held:,} are missing" in said
    assert f"train: {held} of {held} sampled images decode" in said
    assert f"export L2L_DATA={out}" in said
    monkeypatch.setattr(index, "_read_all", None)
    for part in ("train", "eval"):
        one, other = (module.load(part, root=str(base)) for base in (root, out))
        miniature.assert_same(one, other)
    folder = reader.find(out, module.TFDS)
    found = reader.read(folder, "train", module.FIELDS, "", out)
    tree = module.files("train", root)
    by_name = dict(zip(map(about.record_name, tree.keys), tree.paths, strict=True))
    for at, key in enumerate(found.names):
        assert found.image(at) == (root / by_name[key]).read_bytes(), "byte for byte"
    monkeypatch.undo()
    monkeypatch.setenv("L2L_CACHE", str(tmp_path / "cache"))
    index.path_beside(folder, "train").unlink()
    assert prepare_cli.main(about, [str(out), "--convert", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert f"in {folder}, as records" in said
    assert f"index: {folder}/index_train.npz" in said
    assert index.path_beside(folder, "train").is_file()
    assert "nothing to convert" in said


@pytest.mark.slow
def test_the_command_needs_no_tensorflow(tmp_path):
    root, out = coco.write_synthetic(9), tmp_path / "out"
    words = [
        sys.executable,
        "-c",
        miniature.WITHOUT_TENSORFLOW + COMMAND,
        root,
        "--convert",
        out,
        "--workers",
        "1",
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "11 of 11 images, " in done.stdout
    assert ", 0 min left" in done.stdout
    assert len(coco.load("train", root=str(out)).keys) == 9


def test_tfds_reads_what_is_written(tmp_path):
    import tensorflow_datasets as tfds

    root = imagenet.write_synthetic(9, ())
    assert (
        prepare_cli.main(
            facts("imagenet"), [str(root), "--convert", str(tmp_path), "--workers", "1"]
        )
        == 0
    )
    raw = {"image": tfds.decode.SkipDecoding()}
    data = tfds.data_source(
        "imagenet2012", split="train", data_dir=tmp_path, download=False, decoders=raw
    )
    names = [row["file_name"].decode() for row in data]
    assert names == [path.rsplit("/", 1)[1] for path in imagenet.files("train", root).paths]
    assert [row["label"] for row in data] == imagenet.load("train", root=str(root)).labels.tolist()
    written = tfds.builder_from_directory(reader.find(tmp_path, "imagenet2012")).info
    assert written.features["label"].names == list(imagenet.titles())
    assert {name: split.num_examples for name, split in written.splits.items()} == {
        "train": 36, "validation": 8
    }  # fmt: skip


def test_strict_accepts_only_the_complete_set_and_names_missing_images(tmp_path, capsys):
    root = shutil.copytree(imagenet.write_synthetic(9, ()), tmp_path / "imagenet")
    out = tmp_path / "out"
    words = [str(root), "--convert", str(out), "--workers", "1", "--strict"]
    assert prepare_cli.main(facts("imagenet"), words) == 1
    said = capsys.readouterr().out
    assert "Nothing is converted" in said
    assert not out.exists()
    assert "no images of n01494475, n01496331" in said
    assert "and 986 more" in said
    assert "val/n01440764/ILSVRC2012_val_00003014.JPEG" in said, "the first missing one"
    whole = {"train": 36, "eval": 8}
    some = facts("imagenet", counts=whole, classes=tuple(imagenet.titles())[:4])
    assert prepare_cli.main(some, words) == 0
    assert (out / "imagenet2012" / "5.1.0" / "dataset_info.json").is_file()
    assert "missing" not in capsys.readouterr().out
    more = facts("imagenet", counts={"train": 30, "eval": 8})
    assert prepare_cli.main(more, [str(root)]) == 0
    assert "the whole set has 30 images: 6 are too many" in capsys.readouterr().out


def test_images_in_the_file_list_of_places_that_are_missing(tmp_path, capsys):
    root = shutil.copytree(places365.write_synthetic(9, ()), tmp_path / "places365")
    paths = places365.files("train", root).paths
    listed = "\n".join(f"{path.removeprefix('data_256')} 0" for path in paths)
    (root / "places365_train_standard.txt").write_text(listed + "\n/b/bar/00000009.jpg 40")
    assert prepare_cli.main(facts("places365"), [str(root)]) == 0
    assert "missing: data_256/b/bar/00000009.jpg\n" in capsys.readouterr().out


def test_a_missing_set_and_broken_images_give_exit_code_1(made, tmp_path, capsys):
    name, module, root = made
    assert prepare_cli.main(facts(name), [str(tmp_path / "nowhere")]) == 1
    assert f"not in {tmp_path / 'nowhere'}: " in capsys.readouterr().err
    tree = module.files("train", root)
    path = root / tree.paths[2]
    path.write_bytes(path.read_bytes()[:500])
    assert prepare_cli.main(facts(name), [str(root), "--convert", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().out
    assert f"{len(tree.keys) - 1} of {len(tree.keys)} sampled images decode" in said
    assert str(path) in said
    assert not (tmp_path / "out").exists()


def test_archives_are_compared_with_published_digests(tmp_path, capsys):
    root = shutil.copytree(coco.write_synthetic(9), tmp_path / "coco")
    (root / "val2017.zip").write_bytes(b"half of it")
    assert prepare_cli.main(facts("coco"), [str(root)]) == 1
    assert "val2017.zip has 10 bytes, not 815,585,330: download" in capsys.readouterr().out
    wrong = {"val2017.zip": (10, "sha256:" + "0" * 64)}
    assert prepare_cli.main(facts("coco", archives=wrong), [str(root)]) == 0
    assert prepare_cli.main(facts("coco", archives=wrong), [str(root), "--archives"]) == 1
    assert "its sha256 is wrong: download it again" in capsys.readouterr().out
    right = {"val2017.zip": (10, "md5:" + hashlib.md5(b"half of it").hexdigest())}
    assert prepare_cli.main(facts("coco", archives=right), [str(root), "--archives"]) == 0
    assert "its md5 is right" in capsys.readouterr().out


@pytest.mark.slow
def test_a_killed_conversion_continues(pictures):
    target, rows = pictures
    words = [sys.executable, "-c", STUCK, target.folder, Path(rows[7][0]).parent]
    process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE)
    until = time.monotonic() + 60
    while not (begun := list(target.folder.glob(f".*-00003-*{files.TEMPORARY}"))):
        assert time.monotonic() < until, "it never began the fourth file"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert begun[0].exists(), "it was killed in the middle of a file"
    before = files_of(target)
    assert len(before) == 3
    assert reader.find(target.folder.parent, "") is None, "an incomplete set is not found"
    same = [(path, name, 0) for path, name, _ in rows]
    convert.convert(target, {"train": same})
    after = files_of(target)
    assert len(after) == 5
    assert before.items() <= after.items(), "finished files are kept"
    files.sweep(target.folder, seconds=0)
    assert not list(target.folder.glob(".*"))
    found = reader.read(target.folder, "train", target.fields, "", target.folder)
    assert found.names == tuple(name for _, name, _ in rows)
    for at, (path, _, _) in enumerate(rows):
        assert found.image(at) == Path(path).read_bytes()


def test_many_processes_write_the_same_files(pictures, tmp_path):
    target, rows = pictures
    convert.convert(target, {"train": rows}, workers=2)
    other = dataclasses.replace(target, folder=tmp_path / "one" / "1.0.0")
    convert.convert(other, {"train": rows})
    one, many = ({k: v[1] for k, v in files_of(t).items()} for t in (other, target))
    assert one == many
    assert len(one) == 5


def test_another_set_in_the_folder_is_not_changed(pictures, tmp_path):
    target, rows = pictures
    convert.convert(target, {"train": rows})
    before = files_of(target)
    convert.convert(target, {"train": rows})
    assert files_of(target) == before
    with pytest.raises(
        ConfigError, match=r"holds 10 other images or in another form .*, not these 9 "
    ):
        convert.convert(target, {"train": rows[:9]})
    (target.folder / convert.PLAN).unlink()
    with pytest.raises(ConfigError, match="holds a set made by another program"):
        convert.convert(target, {"train": rows})
    for name in ("dataset_info.json", "features.json"):
        (target.folder / name).unlink()
    with pytest.raises(ConfigError, match="holds a set made by another program"):
        convert.convert(target, {"train": rows})
    assert files_of(target) == before


def test_a_file_that_is_no_image_stops_the_conversion_and_is_named(pictures):
    target, rows = pictures
    Path(rows[5][0]).write_bytes(b"<html>no such image</html>")
    with pytest.raises(BrokenImage, match=r"pictures/5\.jpg is no image: .*Repair or remove"):
        convert.convert(target, {"train": rows})
    assert len(files_of(target)) == 2


def test_a_full_disk_leaves_no_incomplete_file(pictures, monkeypatch):
    from array_record.python import array_record_module

    target, rows = pictures

    class Full:
        def __init__(self, path, _):
            Path(path).write_bytes(b"half a")

        def write(self, record):
            raise RuntimeError("write() failed: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(array_record_module, "ArrayRecordWriter", Full)
        with pytest.raises(NotSaved, match=r"No space left on device\. What is done is kept"):
            convert.convert(target, {"train": rows})
    assert [p.name for p in target.folder.iterdir()] == [convert.PLAN]
    convert.convert(target, {"train": rows})
    assert len(files_of(target)) == 5


def test_images_that_were_not_written_are_noticed(pictures, monkeypatch):
    from array_record.python import array_record_module

    target, rows = pictures
    real = array_record_module.ArrayRecordWriter

    class Forgetful:
        def __init__(self, *words):
            self.writer, self.held = real(*words), 0

        def write(self, record):
            self.held += 1
            if self.held == 1:
                self.writer.write(record)

        def close(self):
            self.writer.close()

    monkeypatch.setattr(array_record_module, "ArrayRecordWriter", Forgetful)
    with pytest.raises(NotSaved, match="1 of 2 images were written"):
        convert.convert(target, {"train": rows})
    assert not files_of(target)


@pytest.fixture
def photographs(tmp_path):
    """(target, rows) of two smooth images, 60 x 90 and 40 x 30 pixels."""
    rows = []
    for at, (height, width) in enumerate([(60, 90), (40, 30)]):
        down, right = np.mgrid[:height, :width]
        image = np.stack([down * 2, right * 2, down + right], axis=-1).astype(np.uint8)
        path = tmp_path / "pictures" / f"{at}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
        rows.append((str(path), path.name, 0))
    folder = tmp_path / "out" / "pets" / "1.0.0"
    return convert.Target(folder, "pets", ("cat", "dog"), reader.Fields("name")), rows


@pytest.mark.parametrize("raw", [False, True])
def test_smaller_images_are_those_of_the_files_resized(photographs, raw):
    target, rows = photographs
    target = dataclasses.replace(target, form=writer.Form(side=32, raw=raw))
    convert.convert(target, {"train": rows})
    records = reader.read(target.folder, "train", target.fields, "{missing}", target.folder)
    source = reader.source(records, records.names, records.labels, records.classes)
    for row, (path, _, _) in enumerate(rows):
        whole, stored = images.decode(Path(path), path), source.read(row)
        wanted = images.shrink(whole, 32)
        assert min(wanted.shape[:2]) == min(32, *whole.shape[:2])
        if raw:
            np.testing.assert_array_equal(stored, wanted)
        else:
            gap = np.abs(stored.astype(int) - wanted)
            assert stored.shape == wanted.shape
            assert 0 < gap.mean() < 1.5


def test_a_set_is_not_continued_in_another_form(photographs):
    target, rows = photographs
    convert.convert(target, {"train": rows})
    smaller = dataclasses.replace(target, form=writer.Form(side=32))
    with pytest.raises(ConfigError, match=r"in another form \(image files, unchanged\)"):
        convert.convert(smaller, {"train": rows})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--side", "256"], "add --convert OUT"),
        (["--raw", "--convert", "out"], "add their size, such as --side 256"),
        (["--side", "8", "--convert", "out"], "at least 32 pixels"),
    ],
)
def test_flags_of_smaller_images_that_make_no_sense(words, message, tmp_path, capsys):
    assert prepare_cli.main(facts("imagenet"), [str(tmp_path), *words]) == 1
    assert message in capsys.readouterr().err
