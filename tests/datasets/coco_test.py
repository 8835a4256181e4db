"""COCO as a proxy: one class, from folders and from records with TFDS's features."""

import shutil

import numpy as np
import pytest
from PIL import Image

from l2l_jax.datasets import coco
from l2l_jax.lib.errors import DataMissing
from tests.datasets import miniature


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made") / "coco"
    shutil.copytree(coco.write_synthetic(24), root)
    return root


@pytest.fixture(scope="module")
def as_records(made, tmp_path_factory):
    """The features of TFDS's coco/2017; its own builder would load TensorFlow."""
    import tensorflow_datasets as tfds
    from array_record.python import array_record_module
    from tensorflow_datasets.core import example_serializer

    kinds = tfds.features
    thing = dict(
        id=np.int64, area=np.int64, bbox=kinds.BBoxFeature(),
        label=kinds.ClassLabel(num_classes=80), is_crowd=np.bool_,
    )  # fmt: skip
    features = kinds.FeaturesDict(
        {
            "image": kinds.Image(encoding_format="jpeg"),
            "image/filename": kinds.Text(),
            "image/id": np.int64,
            "objects": kinds.Sequence(thing),
        }
    )
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    root = tmp_path_factory.mktemp("tfds")
    folder = root / "coco" / "2017" / "1.1.0"
    folder.mkdir(parents=True)
    for split, name in (("train", "train2017"), ("validation", "val2017")):
        path = folder / f"coco-{split}.array_record-00000-of-00001"
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        box = tfds.features.BBox(ymin=0.1, xmin=0.2, ymax=0.5, xmax=0.7)
        for image in sorted((made / name).iterdir(), reverse=True):
            count = int(image.stem) % 3
            example = {
                "image": str(image), "image/filename": image.name, "image/id": int(image.stem),
                "objects": [dict(id=1, area=9, bbox=box, label=17, is_crowd=False)] * count,
            }  # fmt: skip
            writer.write(serializer.serialize_example(features.encode_example(example)))
        writer.close()
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    splits = [
        tfds.core.SplitInfo(
            name=split, shard_lengths=[count], num_bytes=1,
            filename_template=tfds.core.ShardedFileTemplate(
                data_dir=folder, dataset_name="coco", split=split,
                filetype_suffix="array_record", template=template,
            ),
        )
        for split, count in (("train", 24), ("validation", 6))
    ]  # fmt: skip
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=splits,
        filename_template=template, check_data=False,
    )  # fmt: skip
    return root


@pytest.mark.parametrize("part", ["train", "eval"])
def test_folders_and_records_are_the_same_set(made, as_records, tmp_path, part):
    source = coco.load(part, root=str(made))
    assert source.classes == ("coco",)
    assert len(source.keys) == {"train": 24, "eval": 6}[part]
    assert not source.labels.any()
    assert source.keys[0].startswith(coco.FOLDERS[part] + "/0000")
    miniature.assert_same(source, coco.load(part, root=str(as_records)))
    (tmp_path / "images").symlink_to(made)
    miniature.assert_same(source, coco.load(part, root=str(tmp_path)))
    miniature.assert_same(source, coco.load(part, synthetic=24))


def test_the_folder_may_come_from_the_environment(made, as_records, monkeypatch):
    for root in (made.parent, as_records):
        monkeypatch.setenv("L2L_DATA", str(root))
        assert len(coco.load("train").keys) == 24


def test_as_a_proxy_the_training_part_is_enough(made, tmp_path):
    (tmp_path / "train2017").symlink_to(made / "train2017")
    assert len(coco.load("train", root=str(tmp_path)).keys) == 24
    with pytest.raises(DataMissing, match="there is no val2017/"):
        coco.load("eval", root=str(tmp_path))


def test_wrong_levels_and_empty_folders(made, tmp_path):
    with pytest.raises(DataMissing, match=f"too deep; the folder to name is probably {made}"):
        coco.load("train", root=str(made / "train2017"))
    with pytest.raises(DataMissing, match=f"not deep enough.*probably {made}"):
        coco.load("train", root=str(made.parent))
    with pytest.raises(DataMissing, match=r"there is no .*coco/2017 with 1\.1\.0"):
        coco.load("train", root=str(made), format="records")
    (tmp_path / "train2017").mkdir()
    with pytest.raises(DataMissing, match="There are no images in"):
        coco.load("train", root=str(tmp_path))


def test_red_stays_red(tmp_path):
    red = Image.new("RGB", (40, 30), miniature.RED)
    miniature.put(tmp_path / "train2017" / "1.jpg", red)
    miniature.put(tmp_path / "train2017" / "2.jpg", red.convert("CMYK"))
    source = coco.load("train", root=str(tmp_path))
    for at in range(2):
        miniature.assert_red(source.read(at))


@pytest.mark.parametrize("form", ["folder", "records"])
def test_any_number_of_hosts_sees_the_same_batches(made, as_records, form):
    root = {"folder": made, "records": as_records}[form]
    miniature.assert_same_batches_on_any_hosts(coco.load("train", root=str(root)))
