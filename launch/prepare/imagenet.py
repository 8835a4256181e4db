"""Checks ImageNet-1K, and converts it to records.

    python launch/prepare/imagenet.py ~/data/imagenet
    python launch/prepare/imagenet.py ~/data/imagenet --convert ~/data --workers 16
    python launch/prepare/imagenet.py ~/data/imagenet --convert ~/data256 --side 256

The folder has any layout that l2l_jax/datasets/imagenet.py reads. The records, 147 GB in
1,332 files, are those that tensorflow-datasets calls imagenet2012; the JPEG files in them
are unchanged. A stopped conversion continues when the same command is run again.

--side 256 stores smaller images, which are read faster: JPEG of quality 95, or with --raw pixels.
The images of a run are then others than with the files: a random crop of a fifth of the area has
fewer pixels than the model takes, and the JPEG is encoded once more. docs/data.md has figures.
"""

import sys

from l2l_jax.data.records import prepare_cli
from l2l_jax.datasets import imagenet

ARCHIVES = {
    "ILSVRC2012_img_train.tar": (147_897_477_120, "md5:1d675b47d978889d74fa0da5fadfb00e"),
    "ILSVRC2012_img_val.tar": (6_744_924_160, "md5:29b22e2961454d5413ddabcf34fc5622"),
}

FACTS = prepare_cli.DatasetFacts(
    title="ImageNet-1K",
    name="imagenet",
    tfds=imagenet.TFDS,
    version=imagenet.VERSION,
    fields=imagenet.FIELDS,
    classes=tuple(imagenet.titles()),
    splits=imagenet.SPLITS,
    counts=imagenet.COUNTS,
    archives=ARCHIVES,
    files=imagenet.files,
    load=imagenet.load,
    expected=imagenet.expected,
    record_name=lambda key: key.split("/", 2)[2],
)

if __name__ == "__main__":
    sys.exit(prepare_cli.main(FACTS))
