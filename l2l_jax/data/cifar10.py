"""CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test photographs of 32x32 pixels.

Read through tensorflow-datasets from array_record files, which needs no TensorFlow; preparing them
does (launch/prepare/cifar10.py). Nothing is downloaded here.
"""

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np

from l2l_jax.lib import images
from l2l_jax.lib.errors import DataMissing
from l2l_jax.types import Source

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"
)  # fmt: skip
SPLITS = {"train": "train", "eval": "test"}
HELP = """\
CIFAR-10 is not in {root}: {missing}.
It is free at https://www.cs.toronto.edu/~kriz/cifar.html (170 MB); this downloads and prepares it:
  python launch/prepare/cifar10.py {root}
or, where the rest of this repository is not at hand:
  python -c "import tensorflow_datasets as tfds; tfds.builder('cifar10', data_dir='{root}', \
file_format='array_record').download_and_prepare()"
Preparing, and only that, needs the packages tensorflow and importlib_resources, which are installed
with l2l_jax. If it is prepared elsewhere, say so: export L2L_DATA=FOLDER_OF_cifar10, or
--config.data.args.root=FOLDER. Then run the same command again. To see the run without CIFAR-10,
use the bundled photographs:
  python -m l2l_jax.main --config configs/autoencoder_cifar10.py:bundled --workdir runs/bundled"""


def load(part: str, *, root: str = "") -> Source:
    """root, the data_dir of TFDS, defaults to $L2L_DATA; keys are TFDS's ids, "train_00017".

    DataMissing if the part is not there in array_record files.
    """
    base = Path(root or os.environ.get("L2L_DATA", "~/data")).expanduser()
    records, order, keys, labels = _opened(base, SPLITS[part])

    def read(at: int) -> np.ndarray:
        return images.decode(records[order[at]]["image"], f"{keys[at]} of {base}")

    return Source(keys, labels, CLASSES, read)


@functools.cache
def _opened(base: Path, split: str) -> tuple[Any, list[int], tuple[str, ...], np.ndarray]:
    """(the records as TFDS shuffled them, where the i-th key lies, sorted keys, their labels).

    Reads every record once, without decoding its image: 2 s for 50,000.
    """
    import tensorflow_datasets as tfds  # slow, and of no use to other data sets

    builder = tfds.builder("cifar10", data_dir=base)
    if not builder.info.splits:
        raise DataMissing(HELP.format(root=base, missing=f"there is no {builder.data_path}"))
    if split not in builder.info.splits:
        raise DataMissing(HELP.format(root=base, missing=f"its {split} split is missing"))
    if (found := builder.info.file_format.value) != "array_record":
        missing = f"it is there in the format {found}, which cannot be read by random access;\n"
        missing += f"remove {builder.data_path} first, and prepare it anew"
        raise DataMissing(HELP.format(root=base, missing=missing))
    # Left alone, TFDS would decode by OpenCV where that is installed, by Pillow elsewhere.
    raw = {"image": tfds.decode.SkipDecoding()}
    records = builder.as_data_source(split, decoders=raw)
    about = [(record["id"].decode(), record["label"]) for record in records]
    order = sorted(range(len(about)), key=about.__getitem__)
    labels = np.array([about[at][1] for at in order], np.int32)
    return records, order, tuple(about[at][0] for at in order), labels
