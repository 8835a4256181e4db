"""CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test photographs of 32x32 pixels.

Read with tensorflow-datasets from array_record files. Only preparing these files needs TensorFlow
(launch/prepare/cifar10.py). This module downloads nothing.
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
It is free at https://www.cs.toronto.edu/~kriz/cifar.html (170 MB). To download and prepare it:
  python launch/prepare/cifar10.py {root}
or, without the rest of this repository:
  python -c "import tensorflow_datasets as tfds; tfds.builder('cifar10', data_dir='{root}', \
file_format='array_record').download_and_prepare()"
Only preparing needs the packages tensorflow and importlib_resources, of the extra [tensorboard]:
pip install 'l2l_jax[tensorboard]'. If the folder cifar10 is elsewhere, name the folder that has it
in it: export L2L_DATA=FOLDER, or --config.data.args.root=FOLDER. Then run the same command again.
To try a run without CIFAR-10, use the bundled photographs:
  python -m l2l_jax.main --config configs/autoencoder_cifar10.py:bundled --workdir runs/bundled"""


# No EXAMPLE: nothing can be read without files of the user.


def load(part: str, *, root: str = "") -> Source:
    """The part as a Source; keys are the ids of TFDS, such as "train_00017".

    root: the data_dir of TFDS, default $L2L_DATA. DataMissing if it has no array_record files of
    the part.
    """
    base = data_root.folder(root)
    if not (folder := reader.find(base, "cifar10")):
        raise DataMissing(HELP.format(root=base, missing=f"there is no {base / 'cifar10'}"))
    records = reader.read(folder, SPLITS[part], reader.Fields(key="id"), HELP, base)
    return reader.source(records, records.names, records.labels, CLASSES, fallible=False)
