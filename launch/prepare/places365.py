"""Checks Places365-Standard, and converts it to records.

    python launch/prepare/places365.py ~/data/places365
    python launch/prepare/places365.py ~/data/places365 --convert ~/data --workers 16

The folder has any layout that l2l_jax/datasets/places365.py reads. The records, 27 GB in
1,841 files, are those that tensorflow-datasets calls places365_small; the JPEG files in them
are unchanged. A stopped conversion continues when the same command is run again.
"""

import sys

from l2l_jax.data.records import prepare_cli
from l2l_jax.datasets import places365

ARCHIVES = {
    "train_256_places365standard.tar": (
        26_103_685_120,
        "sha256:0ade5d7d38c682aa0203014a2b99ad3bf608bf1de0f151dc0d80efba54660a0a",
    ),
    "val_256.tar": (
        525_158_400,
        "sha256:24b4e639ef12a0012af525bc4cb443e4ab4aaea8369a1fb009b70e4a4aad5d48",
    ),
    "filelist_places365-standard.tar": (
        67_498_496,
        "sha256:520699e00d69b63ddc29fac54645aa00ce1c10ca42e288960aa1cf791d6e9aa9",
    ),
}

FACTS = prepare_cli.DatasetFacts(
    title="Places365-Standard",
    name="places365",
    tfds=places365.TFDS,
    version=places365.VERSION,
    fields=places365.FIELDS,
    classes=places365.classes(),
    splits=places365.SPLITS,
    counts=places365.COUNTS,
    archives=ARCHIVES,
    files=places365.files,
    load=places365.load,
    expected=places365.expected,
    record_name=str,
)

if __name__ == "__main__":
    sys.exit(prepare_cli.main(FACTS))
