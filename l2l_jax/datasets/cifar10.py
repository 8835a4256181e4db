"""CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test photographs of 32x32 pixels.

Read through tensorflow-datasets from array_record files, which needs no TensorFlow; preparing them
does (launch/prepare/cifar10.py). Nothing is downloaded here.
"""

from l2l_jax.data import data_root
from l2l_jax.data.records import reader
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
    base = data_root.folder(root)
    if not (folder := reader.find(base, "cifar10")):
        raise DataMissing(HELP.format(root=base, missing=f"there is no {base / 'cifar10'}"))
    found = reader.read(folder, SPLITS[part], reader.Fields(key="id"), HELP, base)
    return reader.source(found, found.names, found.labels, CLASSES, fallible=False)
