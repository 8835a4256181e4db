"""COCO 2017: 118,287 training and 5,000 validation photographs, as one class: a proxy for others.

Read from any of

    train2017/*.jpg  val2017/*.jpg            also one level down, in images/
    coco/2017/1.1.0/*.array_record-*          TFDS's (launch/prepare/coco.py)

Keys are the same in both: "train2017/000000000009.jpg".
"""

from pathlib import Path

import numpy as np

from l2l_jax.data import data_root, image_tree, synthetic
from l2l_jax.data.records import reader
from l2l_jax.lib.errors import DataMissing
from l2l_jax.types import Source

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
The copy of tensorflow-datasets does, too. If it lies elsewhere, say so:
export L2L_DATA=FOLDER_OF_coco, or --config.data.args.root=FOLDER. Then run the same command
again."""

EXAMPLE = dict(synthetic=4)


def load(part: str, *, root: str = "", format: str = "", synthetic: int = 0) -> Source:
    """root defaults to $L2L_DATA/coco, or $L2L_DATA if TFDS has it there.

    format is "folder" or "records" if it should not be found out. synthetic: so many made-up
    training images in true files, in place of root.
    """
    if synthetic:
        root, format = str(make_up(synthetic)), "folder"
    base, folder = data_root.choose(root, "coco", TFDS, format, HELP, VERSION)
    if folder:
        found = reader.read(folder, SPLITS[part], FIELDS, HELP, base)
        keys = [f"{FOLDERS[part]}/{name}" for name in found.names]
        return reader.source(found, keys, found.labels, CLASSES)
    return files(part, base).source()


def files(part: str, root: Path) -> image_tree.ImageTree:
    """The part as image files. DataMissing if they are not there."""
    name = FOLDERS[part]
    for base in (root, root / "images"):
        if (base / name).is_dir():
            found = ((path, path, CLASSES[0]) for path in image_tree.below(base, name))
            return image_tree.make(base, found, CLASSES)
    missing = f"there is no {name}/{data_root.elsewhere(root, (name,))}"
    raise DataMissing(HELP.format(root=root, missing=missing))


def make_up(count: int) -> Path:
    """The root of a tree with `count` made-up training images, and some to test."""
    held = synthetic.held_out(count)
    numbers = np.random.default_rng(0).choice(600_000, count + held, replace=False)
    names = [
        f"{FOLDERS['train' if i < count else 'eval']}/{n:012d}.jpg" for i, n in enumerate(numbers)
    ]
    return synthetic.tree("coco", [(name, 0) for name in names], {})
