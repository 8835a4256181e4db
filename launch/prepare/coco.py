"""Checks COCO 2017, and converts its images to records.

    python launch/prepare/coco.py ~/data/coco
    python launch/prepare/coco.py ~/data/coco --convert ~/data --workers 16
    python launch/prepare/coco.py ~/data/coco --convert ~/data256 --side 256

The folder has any layout that l2l_jax/datasets/coco.py reads. The records, 20 GB in 124 files, have
the place and names of coco/2017 of tensorflow-datasets, but hold only images and their names: no
boxes, no labels. The JPEG files in them are unchanged. A stopped conversion continues when the same
command is run again.

--side 256 stores smaller images, which are read faster: JPEG of quality 95, or with --raw pixels.
The images of a run are then others than with the files: a random crop of a fifth of the area has
fewer pixels than the model takes, and the JPEG is encoded once more. docs/data.md has figures.
"""

import sys

from l2l_jax.data.records import prepare_cli
from l2l_jax.datasets import coco

ARCHIVES = {
    "train2017.zip": (
        19_336_861_798,
        "sha256:69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
    ),
    "val2017.zip": (
        815_585_330,
        "sha256:4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
    ),
}

FACTS = prepare_cli.DatasetFacts(
    title="COCO 2017",
    name="coco",
    tfds=coco.TFDS,
    version=coco.VERSION,
    fields=coco.FIELDS,
    classes=(),
    splits=coco.SPLITS,
    counts=coco.COUNTS,
    archives=ARCHIVES,
    files=coco.files,
    load=coco.load,
    record_name=lambda key: key.split("/", 1)[1],
)

if __name__ == "__main__":
    sys.exit(prepare_cli.main(FACTS))
