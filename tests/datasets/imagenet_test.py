"""ImageNet in each of its layouts: the same set, and errors that explain what is wrong."""

import shutil

import numpy as np
import pytest
from PIL import Image

from l2l_jax.data import synthetic
from l2l_jax.datasets import imagenet
from l2l_jax.lib.errors import BrokenImage, ConfigError, DataMissing
from tests.datasets import miniature

NAMES = ("n01440764", "n01443537", "n02012849", "n03126707")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """12 training and 3 validation images of each of four classes, in folders of their classes."""
    root = tmp_path_factory.mktemp("made") / "imagenet"
    shutil.copytree(imagenet.write_synthetic(12, NAMES), root)
    return root


@pytest.fixture
def tree(made, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(made, tmp_path / "imagenet")


@pytest.fixture(scope="module")
def as_records(made, tmp_path_factory):
    """The same images as written by the builder of TFDS, in another order."""
    import tensorflow_datasets as tfds

    root, splits = tmp_path_factory.mktemp("tfds"), {}
    for part, split in imagenet.SPLITS.items():
        found = imagenet.files(part, made)
        rows = np.random.default_rng(0).permutation(len(found.keys))
        splits[split] = [
            dict(
                image=str(made / found.paths[row]),
                label=found.classes[found.labels[row]],
                file_name=found.paths[row].split("/")[2],
            )
            for row in rows
        ]
    builder = tfds.builder("imagenet2012", data_dir=root, file_format="array_record")
    miniature.sequential(builder, splits)
    return root


def flatten(tree):
    for path in sorted((tree / "val").rglob("*.JPEG")):
        path.rename(tree / "val" / path.name)
    for folder in [p for p in (tree / "val").iterdir() if p.is_dir()]:
        folder.rmdir()


@pytest.mark.parametrize("part", ["train", "eval"])
def test_folders_and_records_are_the_same_set(made, as_records, part):
    folder = imagenet.load(part, root=str(made))
    miniature.assert_same(folder, imagenet.load(part, root=str(as_records)))
    assert len(folder.keys) == {"train": 48, "eval": 12}[part]
    assert folder.classes == NAMES
    assert folder.titles == ("tench", "goldfish", "crane bird", "crane")
    assert folder.fallible
    name = folder.classes[folder.labels[-1]]
    assert folder.keys[-1].startswith(f"{imagenet.FOLDERS[part]}/{name}/")


def test_the_format_is_detected_and_can_be_set(made, as_records, tmp_path, monkeypatch):
    monkeypatch.setenv("L2L_DATA", str(tmp_path))
    (tmp_path / "imagenet").symlink_to(made)
    assert len(imagenet.load("train").keys) == 48
    (tmp_path / "imagenet2012").symlink_to(as_records / "imagenet2012")
    miniature.assert_same(imagenet.load("eval"), imagenet.load("eval", format="folder"))
    (tmp_path / "imagenet").unlink()
    (tmp_path / "imagenet").mkdir()
    assert len(imagenet.load("train").keys) == 48, "from the records"
    assert len(imagenet.load("train").keys) == 48
    assert len(imagenet.load("train", root=str(as_records / "imagenet2012" / "5.1.0")).keys) == 48
    with pytest.raises(DataMissing, match="train/ and val/ are missing"):
        imagenet.load("train", format="folder")
    with pytest.raises(DataMissing, match=r"there is no .*imagenet2012 with 5\.1\.0"):
        imagenet.load("train", root=str(made), format="records")
    with pytest.raises(ConfigError, match="Did you mean 'folder'"):
        imagenet.load("train", root=str(made), format="folders")


def test_classes_of_a_flat_validation_folder_follow_from_file_names(made, tree):
    flatten(tree)
    miniature.assert_same(
        imagenet.load("eval", root=str(made)), imagenet.load("eval", root=str(tree))
    )


@pytest.mark.parametrize("name", imagenet.LABEL_FILES)
def test_the_layout_of_kaggle(made, tree, tmp_path, name):
    flatten(tree)
    inner = tmp_path / "kaggle" / "ILSVRC" / "Data" / "CLS-LOC"
    inner.parent.mkdir(parents=True)
    tree.rename(inner)
    held = imagenet.files("eval", made)
    stems = [path.split("/")[2].removesuffix(".JPEG") for path in held.paths]
    wnids = [held.classes[label] for label in held.labels]
    if name.endswith("csv"):
        lines = ["ImageId,PredictionString"]
        lines += [f"{s},{w} 1 2 3 4 " for s, w in zip(stems, wnids, strict=True)]
    else:
        lines = [f"{s}.JPEG {w}" for s, w in zip(stems, wnids, strict=True)]
    listed = tmp_path / "kaggle" / name
    listed.write_text("\n".join(lines))
    for part in ("train", "eval"):
        miniature.assert_same(
            imagenet.load(part, root=str(made)),
            imagenet.load(part, root=str(tmp_path / "kaggle")),
        )
    listed.write_text("\n".join(lines[:-1]))
    with pytest.raises(ConfigError, match="does not have the class of 1 images"):
        imagenet.load("eval", root=str(tmp_path / "kaggle"))
    wrong = lines[-1].replace(wnids[-1], wnids[0])
    listed.write_text("\n".join([*lines[:-1], wrong]))
    with pytest.raises(ConfigError, match=r"wrong: 1 images.*is n03126707 \(crane\)"):
        imagenet.load("eval", root=str(tmp_path / "kaggle"))
    listed.write_text("ILSVRC2012_val_00000001 490")
    with pytest.raises(ConfigError, match="should have the wnid of every image"):
        imagenet.load("eval", root=str(tmp_path / "kaggle"))


def test_the_error_for_a_root_at_the_wrong_level_names_the_right_one(made, tmp_path):
    for deeper in (made / "train", made / "train" / NAMES[0], made / "val" / NAMES[1]):
        with pytest.raises(DataMissing, match=f"too deep; the folder to name is probably {made}"):
            imagenet.load("train", root=str(deeper))
    (tmp_path / "sets" / "pictures").mkdir(parents=True)
    (tmp_path / "sets" / "pictures" / "imagenet").symlink_to(made)
    for above in (tmp_path, tmp_path / "sets" / "pictures"):
        with pytest.raises(DataMissing, match=r"not deep enough.* probably .*pictures/imagenet\."):
            imagenet.load("train", root=str(above))


def test_missing_folders_and_archives_that_are_not_unpacked(tree):
    shutil.rmtree(tree / "val")
    (tree / "ILSVRC2012_img_val.tar").touch()
    with pytest.raises(DataMissing, match=r"val/ is missing \(ILSVRC2012_img_val.tar must be unp"):
        imagenet.load("train", root=str(tree))
    (tree / "val").mkdir()
    shutil.rmtree(tree / "train")
    (tree / "train").mkdir()
    (tree / "train" / "n01440764.tar").touch()
    with pytest.raises(DataMissing, match=r"images of 0 of the 1,000.* 1 \.tar files must be unp"):
        imagenet.load("train", root=str(tree))


def test_train_folders_that_are_no_classes(tree):
    miniature.put(tree / "train" / "cats" / "1.JPEG")
    with pytest.raises(ConfigError, match=r"holds cats\. For other images use --config\.data"):
        imagenet.load("train", root=str(tree))
    shutil.rmtree(tree / "train" / "cats")
    (tree / "train").rename(tree / "inner")
    (tree / "train").mkdir()
    (tree / "inner").rename(tree / "train" / "ILSVRC2012_img_train")
    with pytest.raises(
        ConfigError, match=r"Move the content of .*ILSVRC2012_img_train one level up"
    ):
        imagenet.load("train", root=str(tree))


def test_a_subset_is_read_and_absent_classes_are_logged(tree, caplog):
    shutil.rmtree(tree / "train" / NAMES[1])
    with pytest.raises(ConfigError, match=r"classes that .*train lacks: \['n01443537'\]"):
        imagenet.load("eval", root=str(tree))
    shutil.rmtree(tree / "val" / NAMES[1])
    caplog.set_level("INFO")
    source = imagenet.load("train", root=str(tree))
    assert source.classes == (NAMES[0], *NAMES[2:])
    assert "lacks 997 of the 1,000 classes: n01443537 (goldfish), " in caplog.text
    assert source.labels.max() == 2
    for name in (NAMES[0], NAMES[2]):
        shutil.rmtree(tree / "train" / name)
    with pytest.raises(DataMissing, match="images of 1 of the 1,000 classes, at least two"):
        imagenet.load("train", root=str(tree))


def test_a_flat_validation_part_may_have_more_classes_than_train(tree):
    flatten(tree)
    shutil.rmtree(tree / "train" / NAMES[3])
    source = imagenet.load("eval", root=str(tree))
    assert source.classes == NAMES[:3]
    assert np.bincount(source.labels).tolist() == [3, 3, 3]


def test_wrong_validation_labels(tree):
    one, other = (tree / "val" / name for name in NAMES[:2])
    one.rename(tree / "aside")
    other.rename(one)
    (tree / "aside").rename(other)
    with pytest.raises(ConfigError) as error:
        imagenet.load("eval", root=str(tree))
    assert "wrong: 6 images" in str(error.value)
    assert "filed under n01440764 (tench) and is n01443537 (goldfish)" in str(error.value)


def test_one_validation_folder_with_the_images_of_all(tree):
    for at in range(31):
        miniature.put(tree / "val" / NAMES[0] / f"own_{at}.JPEG")
    with pytest.raises(ConfigError, match=r"34 images of n01440764, where other classes have 3: "):
        imagenet.load("eval", root=str(tree))


def test_validation_images_of_unknown_names_need_a_label_file(tree):
    flatten(tree)
    path = next((tree / "val").iterdir())
    path.rename(tree / "val" / "holiday.JPEG")
    with pytest.raises(ConfigError, match=r"val/holiday.JPEG is no name of ILSVRC.*val_map\.txt"):
        imagenet.load("eval", root=str(tree))
    miniature.put(tree / "val" / NAMES[0] / "1.JPEG")
    with pytest.raises(ConfigError, match="beside folders of images"):
        imagenet.load("eval", root=str(tree))


def test_records_with_wrong_validation_labels(made, tmp_path):
    import tensorflow_datasets as tfds

    def row(path, wnid):
        return dict(image=str(made / path), label=wnid, file_name=path.rsplit("/", 1)[1])

    train = [row(path, path.split("/")[1]) for path in imagenet.files("train", made).paths]
    held = imagenet.files("eval", made).paths
    builder = tfds.builder("imagenet2012", data_dir=tmp_path, file_format="array_record")
    miniature.sequential(builder, {"train": train, "validation": [row(p, NAMES[0]) for p in held]})
    with pytest.raises(ConfigError, match="wrong: 9 images"):
        imagenet.load("eval", root=str(tmp_path))


def test_truncated_records_are_named(as_records, tmp_path):
    root = shutil.copytree(as_records, tmp_path / "tfds")
    path = sorted((root / "imagenet2012" / "5.1.0").glob("*train*"))[2]
    path.write_bytes(path.read_bytes()[:70_000])
    with pytest.raises(BrokenImage, match=f"{path} is truncated or damaged"):
        imagenet.load("train", root=str(root))


def test_red_stays_red_through_folders_and_records(made, tmp_path):
    import tensorflow_datasets as tfds

    root = tmp_path / "imagenet"
    red = Image.new("RGB", (40, 30), miniature.RED)
    for name in NAMES[:2]:
        miniature.put(root / "train" / name / "rgb.JPEG", red)
        miniature.put(root / "train" / name / "cmyk.JPEG", red.convert("CMYK"))
    shutil.copytree(root / "train", root / "val")
    paths = imagenet.files("train", root).paths
    rows = [
        dict(image=str(root / p), label=p.split("/")[1], file_name=p.split("/")[2]) for p in paths
    ]
    builder = tfds.builder("imagenet2012", data_dir=tmp_path, file_format="array_record")
    miniature.sequential(builder, {"train": rows, "validation": rows})
    for where in (root, tmp_path):
        source = imagenet.load("train", root=str(where))
        assert len(source.keys) == 4
        for at in range(4):
            miniature.assert_red(source.read(at))


@pytest.mark.parametrize("form", ["folder", "records"])
def test_any_number_of_hosts_sees_the_same_batches(made, as_records, form):
    root = {"folder": made, "records": as_records}[form]
    miniature.assert_same_batches_on_any_hosts(imagenet.load("train", root=str(root)))


def test_synthetic_images_are_jpeg_files_of_several_modes_written_once(made, monkeypatch):
    assert miniature.modes(made) == {("RGB", 1), ("L", 1), ("CMYK", 1), ("RGB", 6)}
    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "jpeg", None)
        source = imagenet.load("train", synthetic=12, synthetic_classes=NAMES, root="/nowhere")
    miniature.assert_same(source, imagenet.load("train", root=str(made)))
    assert len({source.read(at).shape for at in range(20)}) > 10, "sizes differ"
    assert len(imagenet.load("eval", synthetic=4).keys) == 8, "at least two of each class"
    with pytest.raises(ConfigError, match="No class called 'n0144'"):
        imagenet.load("train", synthetic=2, synthetic_classes=("n0144",))


def test_the_bundled_titles_and_labels():
    titles = imagenet.titles()
    assert len(titles) == len(set(titles.values())) == 1000
    assert list(titles) == sorted(titles)
    assert titles["n15075141"] == "toilet tissue"
    assert np.bincount(imagenet.validation_labels()).tolist() == [50] * 1000
    assert list(titles)[imagenet.validation_labels()[0]] == "n01751748", "a sea snake"
    assert list(titles)[imagenet.validation_labels()[292]] == "n01440764", "a tench"
