"""COCO 2017: 118,287 training and 5,000 validation photographs in one class, for use as a proxy.

Reads any of these layouts:

    train2017/*.jpg  val2017/*.jpg            or the same in a sub-folder images/
    coco/2017/1.1.0/*.array_record-*          records of TFDS (launch/prepare/coco.py)

Keys are the same in both, such as "train2017/000000000009.jpg".
"""

from pathlib import Path

import numpy as np

from l2l_jax.data import data_root, image_tree, synthetic
from l2l_jax.data.records import reader
from l2l_jax.lib.errors import DataMissing
from l2l_jax.types import Bounds, Source

COUNTS = {"train": 118_287, "eval": 5_000}
CLASSES = ("coco",)
FOLDERS = {"train": "train2017", "eval": "val2017"}
SPLITS = {"train": "train", "eval": "validation"}
TFDS = "coco/2017"
VERSION = "1.1.0"
FIELDS = reader.Fields(key="image/filename", label="")
HELP = """\
COCO 2017 is not in {root}: {missing}.
It is free at https://cocodataset.org/#download; get train2017.zip (19 GB) and val2017.zip (1 GB)
from http://images.cocodataset.org/zips/ and unpack them into one folder:
  {root}/train2017/*.jpg
  {root}/val2017/*.jpg
or prepare coco/2017 of tensorflow-datasets. If the folder coco is elsewhere, name the folder that
contains it, export L2L_DATA=FOLDER, or itself, --config.data.args.root=FOLDER. Then run the same
command again."""

EXAMPLE = dict(synthetic=4)
BOUNDS = {"synthetic": Bounds(0, 10**6)}


def load(part: str, *, root: str = "", format: str = "", synthetic: int = 0) -> Source:
    """The part as a Source. DataMissing if it is not there.

    root: folder of the data set, default $L2L_DATA/coco, or $L2L_DATA if that holds records of
    TFDS. format: "folder" or "records" to read only this; "" prefers records. synthetic: number of
    synthetic training images that are written to files and used in place of root; 0: none.
    """
    if synthetic:
        root, format = str(write_synthetic(synthetic)), "folder"
    base, folder = data_root.locate(root, "coco", TFDS, format, HELP, VERSION)
    if folder:
        records = reader.read(folder, SPLITS[part], FIELDS, HELP, base)
        keys = [f"{FOLDERS[part]}/{name}" for name in records.names]
        return reader.source(records, keys, records.labels, CLASSES)
    return files(part, base).source()


def files(part: str, root: Path) -> image_tree.ImageTree:
    """The part as image files. DataMissing if they are not there."""
    name = FOLDERS[part]
    for base in (root, root / "images"):
        if (base / name).is_dir():
            rows = ((path, path, CLASSES[0]) for path in image_tree.list_images(base, name))
            return image_tree.make(base, rows, CLASSES)
    missing = f"there is no {name}/{data_root.hint(root, (name,))}"
    raise DataMissing(HELP.format(root=root, missing=missing))


def write_synthetic(count: int) -> Path:
    """The root of a folder of `count` synthetic training images, and some validation images."""
    total = count + synthetic.eval_count(count)
    numbers = np.random.default_rng(0).choice(600_000, total, replace=False)
    paths = [
        f"{FOLDERS['train' if i < count else 'eval']}/{n:012d}.jpg" for i, n in enumerate(numbers)
    ]
    return synthetic.write_tree("coco", [(path, 0) for path in paths], {})
